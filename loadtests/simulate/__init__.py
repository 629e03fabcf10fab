"""What routing by prefix is worth: one workload, four strategies, Dynamo's mocker workers."""
