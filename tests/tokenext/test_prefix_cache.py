import sys
import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from extproc.token_metadata import TokenIds
from tokenext.cut_points import CutPoints, CutToken, UncuttableError
from tokenext.engine import EngineError, FakeEngine
from tokenext.engines.fast import FastEngine
from tokenext.prefix_cache import PrefixCache, check, with_prefix_cache
from tokenext.prefix_nodes import shared_length
from tokenext.prefix_tree import PrefixTree

SHORTEST = 256  # of these tests
BEGIN, END = "<|im_start|>", "<|im_end|>"
OPENING = TokenIds.pack([FakeEngine.BEGINNING])


def cut_token(text: str) -> CutToken:
    return CutToken(text, FakeEngine().encode(text, add_special_tokens=False))


POINTS = CutPoints((cut_token(BEGIN), cut_token(END)), opening=OPENING)
SYSTEM = f"{BEGIN}system\n{'You are helpful. ' * 30}{END}\n"


class CountingEngine(FakeEngine):
    """Remembers what it had to encode."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
        self.encoded.append(text)
        return super().encode(text, add_special_tokens=add_special_tokens)

    def characters(self) -> int:
        """How many since the last look."""
        total = sum(map(len, self.encoded))
        self.encoded.clear()
        return total


class Bench:
    def __init__(self, budget_bytes: int = 1 << 24, points: CutPoints = POINTS) -> None:
        self._checks = 0
        self.engine = CountingEngine()
        self.tree = PrefixTree(budget_bytes)
        self.cache = PrefixCache(self.engine, points, self.tree, tokenizer="fake", shortest=SHORTEST)

    def cost(self, text: str, *, isolation: str = "", add_special_tokens: bool = False) -> int:
        """The characters that the engine had to encode for a text whose ids were right."""
        self.engine.encoded.clear()
        ids = self.cache.encode(text, add_special_tokens=add_special_tokens, isolation=isolation)
        spent = self.engine.characters()
        assert ids == FakeEngine().encode(text, add_special_tokens=add_special_tokens)
        self._checks += 1
        if self.tree.snapshot().entries < 50 or self._checks % 20 == 0:
            audit(self.tree)
        return spent


def audit(tree: PrefixTree) -> None:
    """The tree's own account of itself is true, and within its budget."""
    roots, entries, size, leaves = tree._roots, 0, 0, []
    for scope, root in roots.items():
        assert root.scope == scope
        assert root.children
        nodes = [root]
        while nodes:
            node = nodes.pop()
            assert node.alive
            size += node.bytes
            entries += node is not root
            assert len(node.text) == sum(each.length for each in node.segments)
            assert len(node.ids) == sum(each.ids_length for each in node.segments)
            for child in node.children or ():
                assert child.parent is node
                nodes.append(child)
            if not node.children:
                leaves.append(node)
    snapshot = tree.snapshot()
    assert (snapshot.entries, snapshot.bytes) == (entries, size)
    assert snapshot.bytes <= snapshot.budget_bytes
    assert {entry[2] for entry in tree._leaves._heap} >= set(leaves)


def turn(number: int, size: int = 600) -> str:
    words = f"word{number} " * (size // 7)
    return f"{BEGIN}user\n{words}{END}\n{BEGIN}assistant\n{words[::-1]}{END}\n"


def prompt(*turns: str, ending: str = f"{BEGIN}assistant\n") -> str:
    return SYSTEM + "".join(turns) + ending


def test_a_prompt_that_was_seen_costs_only_its_ending():
    bench = Bench()
    text = prompt(turn(1), turn(2))
    assert bench.cost(text) > len(text)
    assert bench.cost(text) < 400
    assert bench.tree.snapshot().hits == 1


def test_the_next_turn_costs_only_itself():
    bench = Bench()
    turns = [turn(number) for number in range(40)]
    bench.cost(prompt(turns[0]))
    for number in range(2, 41):
        assert bench.cost(prompt(*turns[:number])) < len(turns[0]) + 600
    assert bench.tree.snapshot().partial_hits == 39


def test_ids_are_counted_by_where_they_came_from():
    bench = Bench()
    first, second = prompt(turn(1)), prompt(turn(1), turn(2))
    bench.cost(first)
    bench.cost(second)
    snapshot = bench.tree.snapshot()
    assert (snapshot.misses, snapshot.partial_hits, snapshot.hits) == (1, 1, 0)
    assert snapshot.tokens_reused + snapshot.tokens_encoded == len(first) + len(second)
    assert snapshot.tokens_reused > len(first) - 300


def test_a_generation_prompt_that_the_next_turn_does_not_have_loses_nothing():
    bench = Bench()
    thinking = f"{BEGIN}assistant\n{END}{END}\n\n"
    turns = [turn(number) for number in range(20)]
    bench.cost(prompt(turns[0], ending=thinking))
    for number in range(2, 21):
        assert bench.cost(prompt(*turns[:number], ending=thinking)) < len(turns[0]) + 600


def test_an_edited_turn_keeps_what_stands_before_it():
    bench = Bench()
    turns = [turn(number) for number in range(30)]
    for number in range(1, 31):
        bench.cost(prompt(*turns[:number]))
    turns[20] = turn(99)
    assert bench.cost(prompt(*turns)) < 12 * len(turns[0])  # it and the nine behind it, of thirty
    assert bench.cost(prompt(*turns)) < 400


def test_what_two_conversations_begin_with_is_learnt_from_the_second():
    bench = Bench()
    bench.cost(prompt(turn(1)))
    assert bench.cost(prompt(turn(2))) > len(SYSTEM)
    assert bench.cost(prompt(turn(3))) < len(turn(3)) + 300


def test_hundreds_of_conversations_share_their_system_prompt_and_go_on():
    bench = Bench()
    for number in range(300):
        bench.cost(prompt(turn(number)))
    for number in range(300):
        assert bench.cost(prompt(turn(number), turn(5000 + number))) < len(turn(5000)) + 900
    # The system prompt is there once.
    assert bench.tree.snapshot().bytes < 300 * (12 * len(turn(1)) + 4000)


def test_conversations_that_begin_alike_in_every_sample_push_each_other_out_and_stay_right():
    bench = Bench()
    alike = "same " * 800
    texts = [SYSTEM + f"{BEGIN}user\n{alike}{number} {END}\n" + "x" * 300 for number in range(60)]
    for text in [*texts, *reversed(texts)]:
        bench.cost(text)
    assert bench.tree.snapshot().entries < 20


def test_isolated_texts_do_not_meet():
    bench = Bench()
    text = prompt(turn(1))
    whole = bench.cost(text)
    for isolation in ("a", "b", "\ud800", "long " * 100_000):
        assert bench.cost(text, isolation=isolation) == whole
        assert bench.cost(text, isolation=isolation) < 400
    assert bench.tree.snapshot().bytes < 5 * (6 * len(text) + 4000)


def test_other_tokenizers_do_not_meet_and_the_same_one_does():
    bench = Bench()
    text = prompt(turn(1))
    bench.cost(text)
    for tokenizer, most in (("other", 10 * len(text)), ("fake", 400)):
        engine = CountingEngine()
        PrefixCache(engine, POINTS, bench.tree, tokenizer=tokenizer, shortest=SHORTEST).encode(
            text, add_special_tokens=False
        )
        assert (engine.characters() < 400) == (most == 400)


def test_texts_with_and_without_special_tokens_help_each_other():
    bench = Bench()
    text = prompt(turn(1))
    bench.cost(text, add_special_tokens=True)
    assert bench.cost(text, add_special_tokens=False) < 400
    assert bench.cost(text, add_special_tokens=True) < 400


@pytest.mark.parametrize("special", [True, False])
def test_special_tokens_stand_on_both_sides_where_the_tokenizer_wants_both(special):
    class Wrapping(FakeEngine):
        def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
            bare = super().encode(text, add_special_tokens=False)
            return TokenIds.pack([7, 8, *bare.as_array(), 9]) if add_special_tokens else bare

    points = replace(POINTS, opening=TokenIds.pack([7, 8]), closing=TokenIds.pack([9]))
    check(Wrapping(), points)
    cache = PrefixCache(Wrapping(), points, PrefixTree(1 << 20), tokenizer="t", shortest=SHORTEST)
    for text in (prompt(turn(1)), prompt(turn(1)), prompt(turn(1), turn(2)), "short", ""):
        expected = Wrapping().encode(text, add_special_tokens=special)
        assert cache.encode(text, add_special_tokens=special) == expected


def test_short_texts_are_not_looked_up():
    bench = Bench()
    for text in ("", "hello", "x" * (SHORTEST - 1)):
        bench.cost(text)
    assert bench.tree.snapshot().misses == 0
    bench.cost("x" * SHORTEST)
    assert bench.tree.snapshot().misses == 1


def test_a_text_without_cut_points_is_encoded_as_it_is_and_not_kept():
    bench = Bench()
    text = "no token anywhere " * 1000
    assert bench.cost(text) == bench.cost(text) == len(text)
    assert bench.engine.encoded == []
    assert bench.tree.snapshot().entries == 0
    assert bench.tree.snapshot().misses == 2


def test_a_text_may_part_from_a_known_one_at_any_character():
    """Within a cut token, at its edges, and around them."""
    known = prompt(turn(1), turn(2))
    for at in range(len(SYSTEM) - 40, len(SYSTEM) + len(turn(1)) + 40):
        bench = Bench()
        bench.cost(prompt(turn(1)))
        bench.cost(known)
        bench.cost(known[:at] + "?" + turn(3) + "x" * 300)
        bench.cost(known[:at])


def test_beginnings_are_learnt_also_where_very_many_conversations_begin():
    bench = Bench()
    systems = [SYSTEM + turn(number, size=900) for number in range(50)]
    for number, system in enumerate(systems):
        bench.cost(system + turn(100 + number, size=3000) + "x" * 300)
    bench.cost(systems[7] + turn(200, size=9000) + "x" * 300)
    assert bench.cost(systems[7] + turn(300) + "x" * 300) < len(turn(300)) + 900


@pytest.mark.parametrize("known", ["", "a", "ab" * 40, "x" * 31, "x" * 32, "x" * 33, "x" * 500])
def test_a_shared_length_is_exact(known):
    for other in (known, known + "y", known + "y" * 200):
        for text in (known, known + "z", known + "z" * 200, "before" + known + "z"):
            at = text.startswith("before") * len("before")
            assert shared_length(text, at, other) == len(known)


def test_an_engines_failure_is_passed_on_and_nothing_is_kept():
    bench = Bench()
    for text in (prompt(turn(1)) + "\ud800", prompt("\ud800" + turn(1))):
        with pytest.raises(EngineError):
            bench.cache.encode(text, add_special_tokens=False)
    assert bench.tree.snapshot().entries == 0


@pytest.mark.parametrize("number", [0, 1])
def test_where_the_engine_does_not_see_a_cut_token_the_text_is_encoded_whole(number):
    """Whatever was proved of the tokenizer: at its end, or at the beginning of what follows."""
    wrong = replace(POINTS.tokens[number], ids=TokenIds.pack([1, 2, 3]))
    bench = Bench(points=replace(POINTS, tokens=(wrong, POINTS.tokens[1 - number])))
    for text in (prompt(turn(1)), prompt(turn(1)), prompt(turn(1), turn(2)), prompt(turn(3))):
        bench.cost(text)
    with pytest.raises(UncuttableError):
        check(FakeEngine(), bench.cache._cut_points)


class BlindAtTheBeginning(FakeEngine):
    """Sees no token with which a text begins."""

    def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
        return super().encode(text.removeprefix(END), add_special_tokens=add_special_tokens)


class BlindAtTheEnd(FakeEngine):
    """Sees no token with which a text ends."""

    def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
        return super().encode(text.removesuffix(END), add_special_tokens=add_special_tokens)


@pytest.mark.parametrize("engine", [BlindAtTheBeginning(), BlindAtTheEnd()])
def test_an_engine_that_sees_no_token_at_an_edge_gets_whole_texts(engine):
    cache = PrefixCache(engine, POINTS, PrefixTree(1 << 20), tokenizer="t", shortest=SHORTEST)
    for text in (prompt(turn(1)), prompt(turn(1), turn(2)), prompt(turn(1)), prompt(turn(3))):
        expected = engine.encode(text, add_special_tokens=False)
        assert cache.encode(text, add_special_tokens=False) == expected


def test_an_engine_that_contradicts_itself_is_not_built_on():
    """The ids of a common beginning must be the beginning of what is kept, or the fork is not made."""
    bench = Bench()
    bench.cost(prompt(turn(1)))
    (node,) = next(iter(bench.tree._roots.values())).children
    node.ids = b"\xff" * len(node.ids)
    bench.cache.encode(prompt(turn(2)), add_special_tokens=False)
    audit(bench.tree)
    assert bench.tree.snapshot().entries == 1


def test_the_lock_is_free_while_the_engine_works():
    class Looking(FakeEngine):
        def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
            tree.snapshot()  # would wait for ever
            return super().encode(text, add_special_tokens=add_special_tokens)

    tree = PrefixTree(1 << 20)
    cache = PrefixCache(Looking(), POINTS, tree, tokenizer="t", shortest=SHORTEST)
    for text in (prompt(turn(1)), prompt(turn(2)), prompt(turn(2), turn(3))):
        cache.encode(text, add_special_tokens=False)
    assert tree.snapshot().entries == 3


def test_the_tree_may_change_while_the_engine_works():
    """Another thread grows, divides, joins or forgets exactly what this one stands on."""
    texts = [prompt(*map(turn, range(number))) for number in range(1, 9)]
    texts += [prompt(turn(1), turn(50)), prompt(turn(60)), prompt(*map(turn, range(3)), turn(70))]

    class Interrupted(FakeEngine):
        def __init__(self) -> None:
            self.meanwhile: list[str] = []

        def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
            while self.meanwhile:
                other.encode(self.meanwhile.pop(), add_special_tokens=False)
            return super().encode(text, add_special_tokens=add_special_tokens)

    for budget in (30_000, 60_000, 1 << 24):
        tree = PrefixTree(budget)
        engine = Interrupted()
        cache = PrefixCache(engine, POINTS, tree, tokenizer="t", shortest=SHORTEST)
        other = PrefixCache(FakeEngine(), POINTS, tree, tokenizer="t", shortest=SHORTEST)
        for text in texts:
            for interruption in texts:
                engine.meanwhile = [interruption, prompt(turn(9)), text]
                ids = cache.encode(text, add_special_tokens=False)
                assert ids == FakeEngine().encode(text, add_special_tokens=False)
                audit(tree)


def test_threads_at_once_get_right_ids_and_leave_a_sound_tree():
    bench = Bench(budget_bytes=200_000)
    expected = {}
    for number in range(40):
        text = prompt(*map(turn, range(number % 10)), turn(number))
        expected[text] = FakeEngine().encode(text, add_special_tokens=False)
    wrong: list[str] = []

    def work(step: int) -> None:
        texts = list(expected)
        for at in range(200):
            text = texts[(at * step) % len(texts)]
            if bench.cache.encode(text, add_special_tokens=False) != expected[text]:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(step,)) for step in (1, 3, 7, 11)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert wrong == []
    audit(bench.tree)


def test_what_was_used_last_is_kept():
    bench = Bench(budget_bytes=60_000)
    favourite = prompt(turn(0))
    bench.cost(favourite)
    for number in range(1, 40):
        bench.cost(prompt(turn(number)), isolation=str(number))
        assert bench.cost(favourite) < 400
    assert bench.tree.snapshot().evictions > 20
    assert bench.cost(prompt(turn(1)), isolation="1") > 400


def test_a_conversation_goes_from_its_end():
    bench = Bench(budget_bytes=60_000)
    for other in (1, 2):  # so that the first turn has two branches and stays a node of its own
        bench.cost(prompt(turn(0), turn(other)))
    bench.cost(prompt(turn(0), turn(2)))
    for number in range(100, 130):
        bench.cost(prompt(turn(0), turn(2), turn(number)))
    assert bench.tree.snapshot().evictions > 0
    assert bench.cost(prompt(turn(0), turn(2))) < 400
    assert bench.cost(prompt(turn(0), turn(1))) < len(turn(1)) + 600


def test_a_text_that_would_cost_all_others_is_not_kept():
    bench = Bench(budget_bytes=100_000)
    bench.cost(prompt(turn(1)))
    bench.cost(prompt(turn(2, size=20_000)), isolation="large")
    assert bench.cost(prompt(turn(1))) < 400
    assert bench.tree.snapshot().evictions == 0


def test_a_budget_that_holds_nothing_is_no_harm():
    bench = Bench(budget_bytes=1)
    for number in range(3):
        bench.cost(prompt(turn(number)))
    assert bench.tree.snapshot().bytes == 0
    with pytest.raises(ValueError, match="budget"):
        PrefixTree(0)


def many_conversations(letter: str) -> list[str]:
    return [f"{BEGIN}user\n{f'{number} {letter}' * 50}{END}\n{'y' * 300}" for number in range(400)]


def one_conversation(letter: str) -> list[str]:
    turns = [f"{BEGIN}user\n{f'{number} {letter}' * 70}{END}\n" for number in range(200)]
    return ["".join(turns[:number]) + "y" * 300 for number in range(1, 200)]


def long_messages(letter: str) -> list[str]:
    return [f"{BEGIN}user\n{number} {letter * 40_000}{END}\n{'y' * 300}" for number in range(3)]


@pytest.mark.parametrize("letter", ["a", "é", "漢", "😀"])
@pytest.mark.parametrize("texts", [many_conversations, one_conversation, long_messages])
def test_the_memory_that_is_claimed_is_what_is_taken(letter, texts):
    """Never less than Python takes, and not much more."""
    first, *others = texts(letter)
    engine = FastEngineOf()
    points = replace(POINTS, tokens=tuple(CutToken(each, engine.ids(each)) for each in (BEGIN, END)))
    tree = PrefixTree(1 << 28)
    cache = PrefixCache(engine, points, tree, tokenizer="t", shortest=SHORTEST)
    cache.encode(first, add_special_tokens=False)
    before = tree.snapshot().bytes
    tracemalloc.start()
    try:
        while others:
            cache.encode(others.pop(0), add_special_tokens=False)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken <= tree.snapshot().bytes - before < 1.8 * taken


def test_text_is_kept_as_narrow_as_it_is_and_once():
    engine = FastEngineOf()
    points = replace(POINTS, tokens=tuple(CutToken(each, engine.ids(each)) for each in (BEGIN, END)))
    tree = PrefixTree(1 << 28)
    cache = PrefixCache(engine, points, tree, tokenizer="t", shortest=SHORTEST)
    cache.encode("漢" * 40_000 + END + "😀", add_special_tokens=False)
    assert tree.snapshot().bytes < 40_000 * (2 + 4) + 4000


class FastEngineOf(FakeEngine):
    """One id per character, and it asks a text for its UTF-8, as engines in Rust do."""

    def ids(self, text: str) -> TokenIds:
        return TokenIds.pack([ord(each) for each in text])

    def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
        FAST.encode(text, add_special_tokens=False)
        return self.ids(text)


FAST = FastEngine(
    (Path(__file__).parents[2] / "loadtests" / "stack" / "model" / "tokenizer.json").read_bytes()
)


def test_a_tokenizer_that_can_be_cut_gets_a_cache(model_dir):
    content = (model_dir / "tokenizer.json").read_bytes()
    tree = PrefixTree(1 << 20)
    caching = with_prefix_cache(FastEngine(content), content, tree, likely=["{{ '<|im_start|>' }}<|im_end|>"])
    assert caching.state == "on: cuts behind 2 added tokens"
    assert caching.engine.name == "fastokens"
    text = prompt(turn(1), turn(2))
    for _ in range(2):
        assert caching.engine.encode(text, add_special_tokens=False) == FastEngine(content).encode(
            text, add_special_tokens=False
        )
    assert tree.snapshot().hits == 1


def test_two_engines_of_one_tokenizer_do_not_meet(model_dir):
    content = (model_dir / "tokenizer.json").read_bytes()
    tree = PrefixTree(1 << 20)
    for engine in (FastEngine(content), FakeNamed(FastEngine(content))):
        caching = with_prefix_cache(engine, content, tree, likely=[])
        caching.engine.encode(prompt(turn(1), turn(2)), add_special_tokens=False)
    assert tree.snapshot().misses == 2


class FakeNamed:
    name = "another"

    def __init__(self, engine: FastEngine) -> None:
        self.encode = engine.encode


def test_without_a_budget_there_is_no_cache(model_dir):
    content = (model_dir / "tokenizer.json").read_bytes()
    engine = FastEngine(content)
    caching = with_prefix_cache(engine, content, None, likely=[])
    assert (caching.engine, caching.state) == (engine, "off: it has no budget")


def test_a_tokenizer_that_cannot_be_cut_says_why():
    engine = FakeEngine()
    caching = with_prefix_cache(engine, b'{"model": {"type": "BPE"}}', PrefixTree(1), likely=[])
    assert (caching.engine, caching.state) == (engine, "off: none of its added tokens is a safe place to cut")


def test_an_engine_that_does_not_do_as_its_tokenizer_says_gets_no_cache(model_dir):
    content = (model_dir / "tokenizer.json").read_bytes()
    caching = with_prefix_cache(FakeEngine(), content, PrefixTree(1), likely=[])
    assert caching.state == "off: its engine gives other ids for a text in parts than for the whole"


def test_an_engine_that_fails_on_a_probe_gets_no_cache():
    class Failing(FakeEngine):
        def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
            raise EngineError("no")

    with pytest.raises(UncuttableError):
        check(Failing(), POINTS)
    check(FakeEngine(), POINTS)
