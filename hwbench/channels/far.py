"""What a POSIX shell on the far side of a road does around a command: its folder, its limits, and what it leaves.

Only these constant texts are ever a shell's program. Everything that varies is an argument of theirs and is quoted on
its way (``shlex.join``), so that nothing a profile, a file's name or a device says becomes part of a program.
"""

from __future__ import annotations

import hashlib
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import not_here

OWN_255 = "hwbench-far: the command itself ended with 255"  # ssh says 255 for its own faults
LATE = "hwbench-far: the command was ended at its time limit"
NOT_SET_UP = "hwbench-far: its folder could not be made"
ENDED = "hwbench-far: the command has ended"  # adb calls a lost connection a success: only this tells them apart
_NOTES = (OWN_255, LATE, NOT_SET_UP, ENDED)

# mark workdir → mark, absolute path of the working folder. Folders of commands that no longer run go: a device that
# lost power in the middle had nobody who could remove them.
GREET = r"""
mark=$1 there=$2
case $there in
  '~') there=$HOME ;;
  '~/'*) there=$HOME/${there#'~/'} ;;
esac
printf '%s\n' "$mark"
mkdir -p -- "$there" && cd -- "$there" && mkdir -p tmp || exit 1
pwd -P
node=$(uname -n)
for each in tmp/*/owner; do
  [ -f "$each" ] && read -r pid name <"$each" && [ "$name" = "$node" ] || continue
  kill -0 "$pid" 2>/dev/null || rm -rf -- "${each%/owner}"
done
exit 0
"""

# mark folder limit command…: run it in the folder, as the leader of a session of its own with a folder for temporary
# files, and when it has ended, or the limit in seconds (0 for none) has passed, end whatever of it is left. The limit
# is a process that sleeps and not `timeout`, which not every device has; where there is no setsid it looks once a
# second, because nothing else could end its sleep early. It leaves a mark before it strikes: the shell here may see the
# command's end and end the guard before the guard's own status could tell.
RUN = r"""
mark=$1 here=$2 limit=$3
shift 3
trap '' PIPE
own=$here/tmp/$mark
cd -- "$here" && mkdir -p tmp && mkdir "$own" && echo "$$ $(uname -n)" >"$own/owner" || {
  rm -rf -- "$own"
  echo 'hwbench-far: its folder could not be made' >&2
  exit 255
}
pid= guard=
end() {
  [ -z "$pid" ] || kill -s KILL -- "-$pid" 2>/dev/null || kill -s KILL "$pid" 2>/dev/null
}
trap 'rm -rf -- "$own"' EXIT
unguard() {
  # KILL, because a shell that was just forked may lose any other signal; twice, because it may just become a leader.
  [ -z "$guard" ] || kill -s KILL -- "-$guard" || kill -s KILL "$guard" && kill -s KILL -- "-$guard"
} 2>/dev/null
trap 'end; unguard; exit 143' HUP INT TERM
TMPDIR=$own
export TMPDIR
lead=
command -v setsid >/dev/null 2>&1 && lead=setsid
exec 3<&0
$lead "$@" <&3 3<&- &
pid=$!
exec 3<&- </dev/null
guard=
if [ "$limit" != 0 ]; then
  if [ -n "$lead" ]; then
    setsid sh -c 'sleep "$2"; : >"$3"; kill -s KILL -- "-$1"; exit 7' guard "$pid" "$limit" "$own/late" \
      >/dev/null 2>&1 &
  else
    (
      left=$limit
      while [ "$left" -gt 0 ] && kill -0 "$pid"; do
        sleep 1
        left=$((left - 1))
      done
      [ "$left" -gt 0 ] && exit 0
      : >"$own/late"
      end
      exit 7
    ) >/dev/null 2>&1 &
  fi
  guard=$!
fi
wait "$pid" 2>/dev/null
code=$?
end
late=0
if [ -n "$guard" ]; then
  unguard
  wait "$guard" 2>/dev/null
  late=$?
  [ ! -e "$own/late" ] || late=7
fi
rm -rf -- "$own"
[ "$late" != 7 ] || echo 'hwbench-far: the command was ended at its time limit' >&2
[ "$code" != 255 ] || echo 'hwbench-far: the command itself ended with 255' >&2
[ "$limit" = 0 ] || echo 'hwbench-far: the command has ended' >&2
exit "$code"
"""

# mark: end the command of that mark, when the client here was killed and the far side may not know.
END = r"""
cd -- "$2" && [ -f "tmp/$1/owner" ] && read -r pid name <"tmp/$1/owner" && kill "$pid" 2>/dev/null
exit 0
"""

# folder name size: whether a file of that name and size is there.
THERE = r"""
[ -f "$1/$2" ] && size=$(wc -c <"$1/$2") && [ "$size" -eq "$3" ] && exit 0
exit 9
"""

# folder name size sha256 mode, content on stdin: all of it or nothing. The part file lies in the command's own folder,
# which goes with the command however it ends.
TAKE = r"""
part=$TMPDIR/part
cat >"$part" || exit 8
size=$(wc -c <"$part")
[ "$size" -eq "$3" ] || { echo "only $size of $3 bytes arrived" >&2; exit 8; }
sum=$({ sha256sum <"$part" || shasum -a 256 <"$part" || openssl dgst -sha256 -r <"$part"; } 2>/dev/null)
case ${sum%% *} in
  "$4" | '') ;;
  *) echo "the content that arrived has sha256 ${sum%% *}" >&2; exit 8 ;;
esac
chmod "$5" "$part" && mkdir -p -- "$1" && mv -f -- "$part" "$1/$2" && exit 0
rmdir -- "$1" 2>/dev/null
exit 8
"""


def line(script: str, *arguments: str) -> str:
    """One line for whatever login shell is there: ``sh`` with a constant program and quoted arguments."""
    return shlex.join(["sh", "-c", script, "hwbench", *arguments])


def wrapped(mark: str, here: str, command: Sequence[str], env: Mapping[str, str], limit_s: float = 0.0) -> str:
    """The line that runs ``command`` there as :data:`RUN` says, with ``env`` added to its environment.

    Raises:
        ValueError: a name that no environment can hold.
    """
    for name in env:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{name!r} is not the name of an environment variable")
    assignments = [f"{name}={value}" for name, value in env.items()]
    return line(RUN, mark, here, str(math.ceil(limit_s)), "env", "--", *assignments, *command)


def file_name(name: str) -> str:
    """A file's name in letters that every file system and shell takes as they are."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".-")
    return plain[-100:].lstrip(".-") or "file"


def place(path: Path, content: str) -> tuple[str, str, int]:
    """Where a file belongs below a working folder: folder and name there, and how many bytes it has.

    The folder is called by the content's hash, or by the hash of whatever else names the content.

    Raises:
        DeviceError: there is no such file here.
    """
    if not path.is_file():
        raise not_here(path, content)
    known = re.fullmatch(r"[0-9a-f]{64}", content)
    folder = content if known else hashlib.sha256(content.encode()).hexdigest()
    return folder, file_name(path.name), path.stat().st_size


def without_notes(stderr: str) -> str:
    """What the command wrote, less what :data:`RUN` added."""
    return "".join(text for text in stderr.splitlines(keepends=True) if text.strip() not in _NOTES)


def status(code: int) -> int:
    """A shell's exit status as a process's: 128 + n stands for signal n. Source: POSIX shell, section 2.8.2."""
    return 128 - code if 128 < code <= 192 else code
