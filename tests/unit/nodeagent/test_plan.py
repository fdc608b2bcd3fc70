"""What is done next: tables of what is observed, at chosen times."""

from __future__ import annotations

import pytest

from nodeagent.pods.pod import Pod
from nodeagent.sync.backoff import FIRST, LONGEST, Backoff, next_backoff
from nodeagent.sync.observed import SECOND, Container, Observed, Sandbox, State
from nodeagent.sync.plan import Plan, Waiting, decide
from nodeagent.translate import marks
from tests.support.pods import container, pod

NOW = 1_000_000 * SECOND
SIDECAR = container("proxy", restartPolicy="Always")


def sandbox(made: Pod, *, attempt: int = 0, ready: bool = True, age: float = 60) -> Sandbox:
    annotations = {marks.DIGEST: made.digest}
    created = NOW - round(age * SECOND)
    return Sandbox(f"s{attempt}", made.key, made.uid, attempt, ready, created, ("10.0.0.1",), annotations)


def running(name: str, *, attempt: int = 0, where: str = "s0") -> Container:
    return Container(f"{name}{attempt}", where, name, attempt, State.RUNNING, NOW, NOW - SECOND)


def exited(
    name: str, code: int = 0, *, attempt: int = 0, where: str = "s0", ago: float = 0, ran: float = 1, backoff: float = 0
) -> Container:
    finished = NOW - round(ago * SECOND)
    return Container(
        f"{name}{attempt}", where, name, attempt, State.EXITED, NOW, finished - round(ran * SECOND), finished, code,
        annotations={marks.BACKOFF: str(backoff)},
    )  # fmt: skip


def plan(made: Pod, *containers: Container, sandboxes: list[Sandbox] | None = None, **held: Waiting) -> Plan:
    found = [sandbox(made)] if sandboxes is None else sandboxes
    return decide(made, Observed(tuple(found), containers), NOW, held)


def starts(planned: Plan) -> list[tuple[str, int, float]]:
    return [(start.container["name"], start.attempt, start.backoff) for start in planned.start]


def test_first_a_sandbox_then_its_containers() -> None:
    made = pod("web", container("a"), container("b"))
    assert plan(made, sandboxes=[]).new_sandbox == 0
    assert starts(plan(made)) == [("a", 0, 0), ("b", 0, 0)]
    done = plan(made, running("a"), running("b"))
    assert (starts(done), done.over, done.new_sandbox, done.wake) == ([], None, None, 0)


def test_a_sandbox_that_is_not_ready_is_followed_by_another() -> None:
    made = pod()
    lost = sandbox(made, attempt=3, ready=False)
    assert plan(made, exited("main", 255, where="s3"), sandboxes=[lost]).new_sandbox == 4
    fresh = sandbox(made, attempt=4)
    planned = plan(made, exited("main", 255, where="s3"), sandboxes=[fresh, lost])
    assert starts(planned) == [("main", 1, FIRST)]


def test_init_containers_run_one_after_the_other() -> None:
    made = pod("web", initContainers=[container("one"), container("two")])
    first = plan(made)
    assert starts(first) == [("one", 0, 0)]
    assert {name: each.reason for name, each in first.waiting.items()} == {
        "two": "PodInitializing",
        "main": "PodInitializing",
    }
    assert starts(plan(made, running("one"))) == []
    assert starts(plan(made, exited("one"))) == [("two", 0, 0)]
    assert starts(plan(made, exited("one"), exited("two"))) == [("main", 0, 0)]
    assert starts(plan(made, exited("one"), exited("two"), running("main"))) == []


def test_an_init_container_that_fails_is_tried_again_after_its_pause() -> None:
    made = pod("web", initContainers=[container("one")])
    assert starts(plan(made, exited("one", 1))) == [("one", 1, FIRST)]
    waiting = plan(made, exited("one", 1, attempt=1, backoff=10, ago=4))
    assert starts(waiting) == []
    assert waiting.waiting["one"].reason == "CrashLoopBackOff"
    assert waiting.wake == NOW + 6 * SECOND


def test_a_new_sandbox_initializes_again() -> None:
    made = pod("web", initContainers=[container("one")])
    both = [sandbox(made, attempt=1), sandbox(made, attempt=0, ready=False)]
    planned = plan(made, exited("one"), exited("main", 137), sandboxes=both)
    assert starts(planned) == [("one", 1, FIRST)]


def test_sidecars_stay_and_are_restarted_while_the_pod_runs() -> None:
    made = pod("web", initContainers=[SIDECAR, container("one")])
    assert starts(plan(made)) == [("proxy", 0, 0)]
    assert starts(plan(made, running("proxy"))) == [("one", 0, 0)]
    assert starts(plan(made, running("proxy"), exited("one"))) == [("main", 0, 0)]
    assert starts(plan(made, exited("proxy", 1), exited("one"), running("main"))) == [("proxy", 1, FIRST)]


def test_a_pod_whose_containers_ended_is_over_though_its_sidecar_runs() -> None:
    made = pod("web", restartPolicy="Never", initContainers=[SIDECAR])
    planned = plan(made, running("proxy"), exited("main"))
    assert planned.over is not None
    assert planned.over.phase == "Succeeded"
    assert [each.id for each in planned.retire] == ["s0"]


@pytest.mark.parametrize(
    ("policy", "code", "outcome"),
    [
        ("Always", 0, "again"),
        ("Always", 1, "again"),
        ("OnFailure", 0, "Succeeded"),
        ("OnFailure", 1, "again"),
        ("Never", 0, "Succeeded"),
        ("Never", 3, "Failed"),
    ],
)
def test_restart_policies(policy: str, code: int, outcome: str) -> None:
    planned = plan(pod("web", restartPolicy=policy), exited("main", code))
    assert (planned.over.phase if planned.over else "again") == outcome
    assert starts(planned) == ([("main", 1, FIRST)] if outcome == "again" else [])


def test_one_container_that_ended_well_waits_for_the_others() -> None:
    made = pod("web", container("a"), container("b"), restartPolicy="OnFailure")
    planned = plan(made, exited("a"), running("b"))
    assert (planned.over, starts(planned)) == (None, [])


def test_the_message_of_a_failed_pod_names_container_and_code() -> None:
    planned = plan(pod("web", restartPolicy="Never"), exited("main", 3))
    assert planned.over is not None
    assert planned.over.message == "container main exited with code 3"


def test_crash_loop_back_off_doubles_from_ten_seconds_to_five_minutes() -> None:
    pauses, backoff = [], 0.0
    for _ in range(8):
        backoff = next_backoff(exited("main", 1, backoff=backoff))
        pauses.append(backoff)
    assert pauses == [10, 20, 40, 80, 160, 300, 300, 300]
    assert next_backoff(exited("main", 1, backoff=LONGEST, ran=600)) == FIRST


def test_a_crash_waits_for_its_pause_and_says_how_to_see_why() -> None:
    ended = exited("main", 1, attempt=2, backoff=20, ago=5)
    planned = plan(pod(), ended)
    assert starts(planned) == []
    waiting = planned.waiting["main"]
    assert waiting.until == planned.wake == NOW + 15 * SECOND
    assert "back-off 20s restarting failed container=main pod=default/web" in waiting.message
    assert "nodectl logs --previous web -c main" in waiting.message
    assert starts(plan(pod(), exited("main", 1, attempt=2, backoff=20, ago=20))) == [("main", 3, 40)]


def test_a_container_that_was_created_but_not_started_is_started() -> None:
    made = pod()
    created = Container("c1", "s0", "main", 2, State.CREATED, NOW, annotations={marks.BACKOFF: "20"})
    (start,) = plan(made, created).start
    assert (start.created, start.attempt, start.backoff) == ("c1", 2, 20)


def test_a_container_that_the_runtime_lost_is_stopped_first() -> None:
    lost = Container("c1", "s0", "main", 0, State.UNKNOWN, NOW)
    planned = plan(pod(), lost)
    assert [each.id for each in planned.stop] == ["c1"]
    assert starts(planned) == []


def test_what_is_held_back_does_not_start_before_its_time() -> None:
    pulling = Waiting("ContainerCreating", "pulling")
    failed = Waiting("ImagePullBackOff", "no", NOW + SECOND)
    made = pod("web", container("a"), container("b"), container("c"))
    planned = plan(made, a=pulling, b=failed, c=Waiting("ImagePullBackOff", "no", NOW))
    assert starts(planned) == [("c", 0, 0)]
    assert planned.waiting == {"a": pulling, "b": failed}
    assert planned.wake == NOW + SECOND


def test_the_deadline_ends_a_pod_and_is_remembered_by_times_alone() -> None:
    made = pod("web", activeDeadlineSeconds=60)
    assert plan(made, running("main"), sandboxes=[sandbox(made, age=59)]).wake == NOW + SECOND
    planned = plan(made, running("main"), sandboxes=[sandbox(made, age=61)])
    assert planned.over is not None
    assert (planned.over.phase, planned.over.reason) == ("Failed", "DeadlineExceeded")
    killed = plan(made, exited("main", 143), sandboxes=[sandbox(made, age=61, ready=False)])
    assert killed.over == planned.over
    once = pod("web", activeDeadlineSeconds=60, restartPolicy="Never")
    finished = plan(once, exited("main", 0, ago=50), sandboxes=[sandbox(once, age=90)])
    assert finished.over is not None
    assert finished.over.phase == "Succeeded"


def test_a_pod_that_is_never_restarted_ends_with_its_sandbox() -> None:
    made = pod("web", restartPolicy="Never")
    planned = plan(made, running("main"), sandboxes=[sandbox(made, ready=False)])
    assert planned.over is not None
    assert planned.over.reason == "SandboxLost"


def test_an_init_container_that_fails_ends_a_pod_that_is_never_restarted() -> None:
    made = pod("web", restartPolicy="Never", initContainers=[container("one")])
    planned = plan(made, exited("one", 2))
    assert planned.over is not None
    assert planned.over.message == "init container one exited with code 2"


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
def test_nothing_is_planned_twice_for_a_pod_that_is_as_it_should_be(policy: str) -> None:
    made = pod("web", restartPolicy=policy, initContainers=[container("one"), SIDECAR])
    planned = plan(made, exited("one"), running("proxy"), running("main"))
    assert (planned.start, planned.stop, planned.retire, planned.over) == ([], [], [], None)


def test_back_off_of_what_fails_before_there_is_a_container() -> None:
    backoff, now, pauses = Backoff(), NOW, []
    for _ in range(7):
        until = backoff.failed(now)
        pauses.append((until - now) // SECOND)
        now = until
    assert pauses == [10, 20, 40, 80, 160, 300, 300]
    assert backoff.failed(now + 700 * SECOND) == now + 710 * SECOND
    backoff.succeeded()
    assert backoff.failed(now) == now + 10 * SECOND
