"""What may be pruned, and what each choice costs."""

from spaces.architecture import Architecture
from spaces.frozen import Frozen
from spaces.groups import ChannelGroup, Member
from spaces.space import Space
from spaces.surgery import cut, describe, rebuild, write_architecture
from spaces.trace import trace

__all__ = [
    "Architecture",
    "ChannelGroup",
    "Frozen",
    "Member",
    "Space",
    "cut",
    "describe",
    "rebuild",
    "trace",
    "write_architecture",
]
