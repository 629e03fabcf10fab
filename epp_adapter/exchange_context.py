"""What every exchange of a process shares."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from epp_adapter.endpoints import EndpointSource
from epp_adapter.exchange_record import ExchangeRecord, RequestRouted
from epp_adapter.model_rewriting import ModelRewriting
from epp_adapter.passive_health import HealthOptions, PassiveHealth
from epp_adapter.records.finder import RecordFinder
from epp_adapter.routing.strategy import RoutingStrategy

__all__ = ["Routing"]


@dataclass(frozen=True, slots=True)
class Routing:
    """What every exchange of a process shares.

    `strategies` is by the name that `x-routing-strategy` may ask for. `clock` counts seconds from anywhere;
    `mint_id` makes a UUID that is never the same twice. `observers` are called once per exchange, when it is
    over, `starters` when its request is routed; both must be quick. `strategy_of` has the strategy of a model
    where it is not the default one, `loras` the models that are LoRA adapters. `destination_fallbacks` is how
    many more endpoints a destination names, for gateways that read a list. `conformance` honours the
    conformance suite's headers, by which any client may choose its endpoint. A request of more than
    `max_headers` header lines is refused.
    """

    endpoints: EndpointSource
    strategies: Mapping[str, RoutingStrategy]
    default_strategy: str
    clock: Callable[[], float]
    mint_id: Callable[[], str]
    observers: tuple[Callable[[ExchangeRecord], None], ...] = ()
    starters: tuple[Callable[[RequestRouted], None], ...] = ()
    records: RecordFinder = field(default_factory=RecordFinder)
    strategy_of: Mapping[str, str] = field(default_factory=dict)
    loras: frozenset[str] = frozenset()
    clear_route_cache: bool = False
    health: PassiveHealth = field(default_factory=lambda: PassiveHealth(HealthOptions()))
    rewriting: ModelRewriting = field(default_factory=ModelRewriting)
    destination_fallbacks: int = 0
    conformance: bool = False
    max_headers: int = 256
