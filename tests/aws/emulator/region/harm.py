"""What is done to machines in tests, and undone. Each takes the machine and the network."""
import threading

from . import docker


def kill(machine, _):
    """Power lost: everything on it dies in one instant, as far as that can be."""
    machine.is_gone = True
    everything = [sibling["Id"] for sibling in machine.siblings] + [machine.container]
    threads = [threading.Thread(target=docker.signal, args=(one,)) for one in everything]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def cut(machine, network):
    """It reaches nobody but its metadata, and nobody reaches it."""
    if not machine.is_cut:
        network.cut(machine.container)
        machine.is_cut = True


def mend(machine, network):
    if machine.is_cut:
        network.mend(machine.container, machine.address)
        machine.is_cut = False


def freeze(machine, _):
    """Nothing on it gets any processor time; what is connected stays so."""
    machine.is_frozen = True
    for one in [sibling["Id"] for sibling in machine.siblings] + [machine.container]:
        docker.pause(one)


def thaw(machine, _):
    for one in [machine.container] + [sibling["Id"] for sibling in machine.siblings]:
        docker.unpause(one)
    machine.is_frozen = False
