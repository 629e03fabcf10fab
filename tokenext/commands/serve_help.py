"""What `tokenext serve --help` says."""

from typing import Final

__all__ = ["DESCRIPTION", "NOTES"]

DESCRIPTION: Final = """\
Serve ext_proc for the models of a settings file. A small one:

  listen: 127.0.0.1:9000            # or unix:/run/tokenext.sock
  admin: 127.0.0.1:9090             # Prometheus /metrics, and a status page for people at /
  models:
  - name: qwen3                     # what clients put into "model"
    aliases: [Qwen/Qwen3-8B]
    source: /models/qwen3           # a directory with tokenizer.json, or a hub id: org/name[@revision]
    handoff: dynamo                 # give the ids to NVIDIA Dynamo workers; none: only route by them
"""

NOTES: Final = """\
more settings:
  log: {level: info, exchange_ratio: 1.0}
                   of requests that went well this share has a line, of the others all
  admin_token_file: FILE
                   the admin port wants its content as a bearer token, but for probes
  tls: {listen: "0.0.0.0:9200", certificate: tls.crt, key: tls.key, client_ca: ca.crt}
                   one more address over TLS; client_ca: callers must show a certificate

signals:
  SIGHUP           load the models again; a bad file leaves everything as it is (see the log)
  SIGTERM, SIGINT  stop taking streams, let open ones end, exit

exit status: 0 stopped or checked, 1 --check found a problem, 2 the settings cannot be used
"""
