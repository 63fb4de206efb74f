"""A pod's life through the client: created, watched until it has ended, its log read and followed, evicted."""

from kubernetes import client, watch

from story import NAMESPACE, connect, refused


def pod(name, *words):
    container = client.V1Container(
        name="main", image="probe.wasm", image_pull_policy="IfNotPresent", args=list(words)
    )
    return client.V1Pod(
        metadata=client.V1ObjectMeta(name=name, labels={"app": name}),
        spec=client.V1PodSpec(containers=[container], restart_policy="Never"),
    )


def until(core, name, wish):
    """Watches a pod until it is as wished."""
    stream = watch.Watch()
    for event in stream.stream(
        core.list_namespaced_pod,
        NAMESPACE,
        field_selector=f"metadata.name={name}",
        timeout_seconds=60,
    ):
        if wish(event):
            stream.stop()
            return event["object"]
    raise AssertionError(f"not in time: {name}")


def ended(core):
    core.create_namespaced_pod(NAMESPACE, pod("speaks", "print", "ahoy", "print", "sailor"))
    done = until(core, "speaks", lambda event: event["object"].status.phase == "Succeeded")
    state = done.status.container_statuses[0].state.terminated
    assert state.exit_code == 0 and state.finished_at >= state.started_at, state
    log = core.read_namespaced_pod_log("speaks", NAMESPACE)
    assert "ahoy" in log, log
    stamped = core.read_namespaced_pod_log("speaks", NAMESPACE, timestamps=True, tail_lines=1)
    assert stamped.split(" ")[0].endswith("Z"), stamped
    followed = list(watch.Watch().stream(core.read_namespaced_pod_log, "speaks", NAMESPACE))
    assert followed == log.splitlines(), followed
    with refused(400, "container none is not valid for pod speaks"):
        core.read_namespaced_pod_log("speaks", NAMESPACE, container="none")

    events = core.list_namespaced_event(NAMESPACE, field_selector="involvedObject.name=speaks")
    assert {"Scheduled", "Started"} <= {event.reason for event in events.items}, events


def gone(core):
    core.create_namespaced_pod(NAMESPACE, pod("stays", "sleep", "600000"))
    until(core, "stays", lambda event: event["object"].status.phase == "Running")
    eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name="stays", namespace=NAMESPACE))
    core.create_namespaced_pod_eviction("stays", NAMESPACE, eviction)
    until(core, "stays", lambda event: event["type"] == "DELETED")


def main():
    connect()
    core = client.CoreV1Api()
    ended(core)
    gone(core)


main()
