"""The next step from what is in force to what is wanted, for every phase and wish."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shadow.core.phases import Facts, Move, Phase, Rehearse, Request, Route, Stay, Wanted, plan

READY = Facts(
    postgresql_following=True,
    behind=None,
    blocked_ready=(),
    blocked_automatic=(),
    rehearsed=True,
    rehearsal_over=False,
    latch=None,
    alarm=None,
)
NOT_YET = replace(
    READY, blocked_ready=("85 more queries",), blocked_automatic=("106 more queries",)
)


def route(phase: Phase, **more: float) -> Route:
    return Route(version=7, phase=phase, **more)  # type: ignore[arg-type]


def wish(wanted: Wanted, force: str | None = None) -> Request:
    return Request(wanted, "test", "a test", force)


@pytest.mark.parametrize("wanted", list(Wanted))
def test_a_complete_copy_begins_the_shadow(wanted: Wanted) -> None:
    """Whatever is wanted, a copy that follows is mirrored to."""
    step = plan(route(Phase.FAISS), wish(wanted), READY)
    assert isinstance(step, Move)
    assert step.phase is Phase.SHADOW


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.RAMP])
def test_a_flip_waits_for_pass_and_says_for_what(phase: Phase) -> None:
    """Without Pass it stays; with it, it moves; a reason given by force stands in for it."""
    assert plan(route(phase), wish(Wanted.POSTGRESQL), NOT_YET) == Stay(("85 more queries",))
    assert plan(route(phase), wish(Wanted.POSTGRESQL), READY) == Move(Phase.POSTGRESQL, "a test")
    forced = plan(route(phase), wish(Wanted.POSTGRESQL, "we must"), NOT_YET)
    assert forced == Move(Phase.POSTGRESQL, "forced: we must")


def test_force_never_skips_the_read_rule() -> None:
    """A store that is behind waits, forced or not."""
    behind = replace(READY, behind="12 entries behind")
    assert plan(route(Phase.SHADOW), wish(Wanted.POSTGRESQL, "we must"), behind) == Stay(
        ("12 entries behind",)
    )


def test_auto_passes_the_stricter_level_and_rehearses_first() -> None:
    """The operator's level is not enough, and a rehearsal comes before the first flip."""
    ready = replace(READY, blocked_automatic=("21 more queries",))
    assert plan(route(Phase.SHADOW), wish(Wanted.AUTO), ready) == Stay(("21 more queries",))
    assert (
        plan(route(Phase.SHADOW), wish(Wanted.AUTO), replace(READY, rehearsed=False)) == Rehearse()
    )
    step = plan(route(Phase.SHADOW), wish(Wanted.AUTO), READY)
    assert isinstance(step, Move)
    assert step.phase is Phase.POSTGRESQL


@pytest.mark.parametrize("phase", [Phase.RAMP, Phase.POSTGRESQL])
@pytest.mark.parametrize("following", [True, False, None])
def test_a_rollback_never_waits(phase: Phase, following: bool | None) -> None:
    """Neither for PostgreSQL nor for evidence."""
    facts = replace(NOT_YET, postgresql_following=following)
    assert plan(route(phase), wish(Wanted.FAISS), facts) == Move(Phase.SHADOW, "a test")


def test_a_ramp_stays_until_something_else_is_wanted() -> None:
    """A ramp is a wish of its own: no earlier one undoes it."""
    assert plan(route(Phase.RAMP, ramp_share=0.5), wish(Wanted.RAMP), READY) == Stay()
    assert plan(route(Phase.SHADOW), wish(Wanted.RAMP), READY) == Stay()


@pytest.mark.parametrize("phase", [Phase.RAMP, Phase.POSTGRESQL])
def test_an_alarm_rolls_back_and_latches(phase: Phase) -> None:
    """Even while PostgreSQL cannot be reached; and the latch holds both wishes."""
    facts = replace(READY, alarm="its success has become worse", postgresql_following=None)
    step = plan(route(phase), wish(Wanted.AUTO), facts)
    assert isinstance(step, Move)
    assert (step.phase, step.latch) == (Phase.SHADOW, True)
    for wanted in (Wanted.AUTO, Wanted.POSTGRESQL):
        held = plan(route(Phase.SHADOW), wish(wanted, "we must"), replace(READY, latch="the alarm"))
        assert isinstance(held, Stay)
        assert "the alarm" in held.waiting_for[0]


def test_a_rehearsal_is_left_alone_until_it_is_over() -> None:
    """A wish for FAISS does not cut it short, an alarm does, and its end is a step of its own."""
    rehearsing = route(Phase.POSTGRESQL, rehearsing_until=9.0)
    assert isinstance(plan(rehearsing, wish(Wanted.FAISS), READY), Stay)
    assert isinstance(plan(rehearsing, wish(Wanted.FAISS), replace(READY, alarm="worse")), Move)
    over = plan(rehearsing, wish(Wanted.AUTO), replace(READY, rehearsal_over=True))
    assert isinstance(over, Move)
    assert over.phase is Phase.SHADOW


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.RAMP])
def test_a_copy_that_no_longer_follows_ends_the_shadow(phase: Phase) -> None:
    """Mirroring to a store that holds nothing would only count errors."""
    step = plan(route(phase), wish(Wanted.POSTGRESQL), replace(READY, postgresql_following=False))
    assert isinstance(step, Move)
    assert step.phase is Phase.FAISS


@pytest.mark.parametrize("wanted", list(Wanted))
def test_final_is_final(wanted: Wanted) -> None:
    """Nothing moves any more."""
    assert isinstance(plan(route(Phase.FINAL), wish(wanted), READY), Stay)
