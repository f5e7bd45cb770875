# What has to be done to bring a host from one configuration to another: a pure difference.

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from .._config.specs import HostConfig, PluginSpec


@dataclass(frozen=True)
class Difference:
    """What is to be done, plugin by plugin; what is in none of these stays as it is.

    Attributes:
        removed: Names of plugins that are not wanted any more.
        changed: Those whose life ends and that begin another by these specifications.
        added: New ones.
        again: Names of plugins that have failed for good, and are tried once more.
        edited: Names of those that start again only because their code was edited.
    """

    removed: tuple[str, ...]
    changed: tuple[PluginSpec, ...]
    added: tuple[PluginSpec, ...]
    again: tuple[str, ...]
    edited: tuple[str, ...]

    @property
    def lines(self) -> list[str]:
        """What is done, a line each, in order."""
        return [
            *(f"removed {name}" for name in self.removed),
            *(f"changed {spec.name}" for spec in self.changed),
            *(f"added {spec.name}" for spec in self.added),
            *(f"tried {name} again" for name in self.again),
            *(f"restarted {name} with edited code" for name in self.edited),
        ]


def difference(
    old: HostConfig, new: HostConfig, failed: Collection[str], edited: Collection[str]
) -> Difference:
    """Compare two configurations.

    Args:
        old: What the host runs.
        new: What it shall run.
        failed: Names of the plugins that have failed for good; what they lacked may be there.
        edited: Names of the plugins that have to start again as their code was edited.
    """
    before = {spec.name: spec for spec in old.plugins}
    wanted = {spec.name for spec in new.plugins}
    all_differ = what_plugins_are_told(old) != what_plugins_are_told(new)
    changed, again, restarted = [], [], []
    for spec in new.plugins:
        if spec.name in before:
            if all_differ or spec != before[spec.name]:
                changed.append(spec)
            elif spec.name in failed:
                again.append(spec.name)
            elif spec.name in edited:
                restarted.append(spec.name)
    return Difference(
        removed=tuple(name for name in before if name not in wanted),
        changed=tuple(changed),
        added=tuple(spec for spec in new.plugins if spec.name not in before),
        again=tuple(again),
        edited=tuple(restarted),
    )


def what_plugins_are_told(config: HostConfig) -> tuple[object, ...]:
    """What every plugin is told of its host: a change of it concerns them all."""
    return config.endpoint, config.pubsub_endpoint, config.check_delay, config.ssh_server


def where_circusd_is(config: HostConfig) -> tuple[object, ...]:
    """What the host's link depends on."""
    return config.endpoint, config.pubsub_endpoint, config.ssh_server
