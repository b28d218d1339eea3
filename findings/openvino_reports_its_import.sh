#!/usr/bin/env bash
# Guess: `import openvino` reads files of its package, and touches neither the network nor the home folder.
# Seen with OpenVINO 2026.4.1 and openvino-telemetry 2025.2.0, which it requires: the import starts a process or thread
# that sends an event to a web analytics service, and stores an identifier under ~/intel, unless the user has opted out or
# the variable CI is set. Offline nothing tells of it. Programs that promise that no data leave the machine must keep
# openvino_telemetry from being imported; OpenVINO then uses a stub of its own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 openvino-telemetry==2025.2.0 packaging==26.4
mkdir "$folder/plain" "$folder/hidden"
cat > "$folder/look.py" <<'PYTHON'
import os, pathlib, sys, time

if sys.argv[1] == "hidden":
    sys.modules["openvino_telemetry"] = None
started = []


def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.fork", "_thread.start_new_thread"):
        started.append(event)
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise OSError("this script stays offline")


sys.addaudithook(watch)
import openvino

time.sleep(3)
files = [str(path.relative_to(pathlib.Path.home())) for path in pathlib.Path.home().rglob("*") if path.is_file()]
print(f"{sys.argv[1]}: OpenVINO {openvino.__version__.split('-')[0]}, events {sorted(set(started))}, files in HOME {files}")
sys.exit(int(bool(started or files)))
PYTHON
for way in plain hidden; do
    status=0
    env -u CI HOME="$folder/$way" "$folder/venv/bin/python" "$folder/look.py" "$way" || status=$?
    [ "$way" = plain ] && expected=1 || expected=0
    [ "$status" = "$expected" ] || { echo "the import behaves otherwise now"; exit 1; }
done
