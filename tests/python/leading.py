"""Leader election: one candidate leads, and another takes over when it ends."""

import os
import signal
import subprocess
import sys

from kubernetes import client
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock

from story import NAMESPACE, connect

LOCKS = {"lease": LeaseLock, "configmap": ConfigMapLock}


def lead(kind, name):
    """One candidate: says so when it leads, and leads until it is killed."""
    election = electionconfig.Config(
        LOCKS[kind]("leader", NAMESPACE, name),
        lease_duration=3,
        renew_deadline=2.5,
        retry_period=1,
        onstarted_leading=lambda: print("leads", name, flush=True),
        onstopped_leading=None,
    )
    leaderelection.LeaderElection(election).run()


def candidate(kind, name):
    return subprocess.Popen(
        [sys.executable, __file__, kind, name], stdout=subprocess.PIPE, text=True
    )


def elected(kind):
    first = candidate(kind, "first")
    second = None
    try:
        assert first.stdout.readline() == "leads first\n"
        second = candidate(kind, "second")
        if kind == "lease":
            lease = client.CoordinationV1Api().read_namespaced_lease("leader", NAMESPACE)
            assert lease.spec.holder_identity == "first", lease
        first.send_signal(signal.SIGKILL)
        assert second.stdout.readline() == "leads second\n"
    finally:
        for process in [first, second]:
            if process:
                process.kill()
                process.wait()


def main():
    connect()
    if len(sys.argv) == 3:
        lead(*sys.argv[1:])
        return
    # A reader that waits for ever would hide what went wrong.
    signal.alarm(60)
    for kind in LOCKS:
        elected(kind)


main()
