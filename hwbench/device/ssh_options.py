"""Which arguments of the ssh client a device profile may hold.

An allow-list: nothing here makes the client run a command on this machine, load a library or forward anything, save
what the file of ``-F`` says. What needs more (a ``ProxyCommand``, say) belongs in the user's own ssh configuration,
where the address may be an alias.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Host names and users that no shell and no token expansion of ssh takes apart.
_HOST = r"[A-Za-z0-9_\[:][A-Za-z0-9_.:\[\]-]*"
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_HOPS = rf"({_USER}@)?{_HOST}(,({_USER}@)?{_HOST})*"
_NUMBER = r"[0-9]{1,6}"
_PATH = r"(?!-)[^\"'`$;|&<>%]{1,400}"  # % and $ are expanded by ssh itself
# Not from the folder that hwbench runs in, which may be one that came with the profile.
_PLACE = rf"(?=/|~/){_PATH}"
_WORDS = r"[A-Za-z0-9@.,+^*_-]{1,400}"
_YES = r"yes|no|ask|accept-new|none"

FLAGS = {"-p": _NUMBER, "-l": _USER, "-i": _PATH, "-F": _PLACE, "-J": _HOPS}
BARE = frozenset({"-4", "-6", "-C"})
# Source of the names: ssh_config(5). They are compared without regard to case, as ssh does.
OPTIONS = {
    "port": _NUMBER,
    "user": _USER,
    "hostname": _HOST,
    "hostkeyalias": _HOST,
    "proxyjump": _HOPS,
    "identityfile": _PATH,
    "certificatefile": _PATH,
    "userknownhostsfile": _PATH,
    "globalknownhostsfile": _PATH,
    "identitiesonly": _YES,
    "stricthostkeychecking": _YES,
    "checkhostip": _YES,
    "compression": _YES,
    "tcpkeepalive": _YES,
    "pubkeyauthentication": _YES,
    "gssapiauthentication": _YES,
    "addressfamily": "any|inet|inet6",
    "bindaddress": _HOST,
    "bindinterface": _USER,
    "connecttimeout": _NUMBER,
    "connectionattempts": _NUMBER,
    "serveraliveinterval": _NUMBER,
    "serveralivecountmax": _NUMBER,
    "preferredauthentications": _WORDS,
    "pubkeyacceptedalgorithms": _WORDS,
    "hostkeyalgorithms": _WORDS,
    "kexalgorithms": _WORDS,
    "ciphers": _WORDS,
    "macs": _WORDS,
    "ipqos": r"[a-z0-9 ]{1,40}",
    "loglevel": "QUIET|FATAL|ERROR|INFO|VERBOSE",
}


def fault(options: Sequence[str]) -> str:
    """What is wrong with these arguments, empty when nothing is."""
    rest = list(options)
    while rest:
        flag = rest.pop(0)
        if flag in BARE:
            continue
        if flag != "-o" and flag not in FLAGS:
            known = ", ".join([*FLAGS, "-o", *sorted(BARE)])
            return f"{flag[:40]!r} may not stand there; {known} may, each argument as a text of its own"
        if not rest:
            return f"{flag} lacks its argument"
        found = _option(rest.pop(0)) if flag == "-o" else _value(flag, FLAGS[flag], rest.pop(0))
        if found:
            return found
    return ""


def _option(text: str) -> str:
    key, equals, value = text.partition("=")
    if key.lower() not in OPTIONS or not equals:
        return f"-o {text[:60]!r} may not stand there; put it into your own ssh configuration if you need it"
    return _value(f"-o {key}", OPTIONS[key.lower()], value)


def _value(name: str, pattern: str, value: str) -> str:
    whole = value.isprintable() and re.fullmatch(pattern, value) is not None
    hint = ": write the path from / or ~/ on" if pattern is _PLACE else ""
    return "" if whole else f"{name} cannot be {value[:60]!r}{hint}"
