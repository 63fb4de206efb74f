"""Watches: from a list on, resumed, bookmarked, filtered, ended in time and expired; and an informer on top."""

import threading

from kubernetes import client, informer, watch

from story import NAMESPACE, connect

SELECTOR = "watched=yes"


def config_map(name, **data):
    return {"metadata": {"name": name, "labels": {"watched": "yes"}}, "data": data}


def merge(core, name, change):
    merging = "application/merge-patch+json"
    core.patch_namespaced_config_map(name, NAMESPACE, change, _content_type=merging)


def resumed(core):
    start = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    core.create_namespaced_config_map(NAMESPACE, config_map("a", n="1"))
    merge(core, "a", {"data": {"n": "2"}})
    core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "unlabelled"}})
    merge(core, "a", {"metadata": {"labels": {"watched": "no"}}})
    merge(core, "a", {"metadata": {"labels": {"watched": "yes"}}})
    core.delete_namespaced_config_map("a", NAMESPACE)

    def events(since, count):
        stream = watch.Watch()
        found = []
        for event in stream.stream(
            core.list_namespaced_config_map,
            NAMESPACE,
            label_selector=SELECTOR,
            resource_version=since,
            timeout_seconds=30,
        ):
            found.append((event["type"], event["object"].metadata.resource_version))
            assert isinstance(event["object"], client.V1ConfigMap)
            if len(found) == count:
                stream.stop()
        return found

    all_events = events(start, 5)
    kinds = [kind for kind, _ in all_events]
    assert kinds == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"], all_events
    # From each event on, exactly the later ones come.
    for position in range(4):
        since = all_events[position][1]
        assert events(since, 4 - position) == all_events[position + 1:]


def ended_in_time(core):
    now = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    stream = watch.Watch().stream(
        core.list_namespaced_config_map, NAMESPACE, resource_version=now, timeout_seconds=1
    )
    assert list(stream) == []


def bookmarked(core):
    stream = watch.Watch()
    for event in stream.stream(
        core.list_namespaced_config_map,
        NAMESPACE,
        allow_watch_bookmarks=True,
        send_initial_events=True,
        resource_version_match="NotOlderThan",
        timeout_seconds=30,
    ):
        if event["type"] == "BOOKMARK":
            metadata = event["raw_object"]["metadata"]
            assert metadata["annotations"]["k8s.io/initial-events-end"] == "true", metadata
            assert stream.resource_version == metadata["resourceVersion"]
            break
        assert event["type"] == "ADDED", event


def informed(core):
    """An informer sees each change once and keeps a copy of what is there."""
    changes, changed = [], threading.Condition()

    def note(kind):
        def handler(thing):
            with changed:
                changes.append((kind, thing.metadata.name))
                changed.notify_all()

        return handler

    def until(change):
        with changed:
            assert changed.wait_for(lambda: change in changes, timeout=30), (change, changes)

    core.create_namespaced_config_map(NAMESPACE, config_map("before"))
    informed = informer.SharedInformer(
        core.list_namespaced_config_map, namespace=NAMESPACE, label_selector=SELECTOR
    )
    for kind in ["ADDED", "MODIFIED", "DELETED"]:
        informed.add_event_handler(kind, note(kind))
    informed.start()
    until(("ADDED", "before"))
    core.create_namespaced_config_map(NAMESPACE, config_map("after"))
    until(("ADDED", "after"))
    merge(core, "after", {"data": {"k": "v"}})
    until(("MODIFIED", "after"))
    core.delete_namespaced_config_map("before", NAMESPACE)
    until(("DELETED", "before"))
    assert [item.metadata.name for item in informed.cache.list()] == ["after"]
    informed.stop()


def main():
    connect()
    core = client.CoreV1Api()
    for story in [resumed, ended_in_time, bookmarked, informed]:
        story(core)


main()
