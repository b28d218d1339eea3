"""Follow a tutorial word for word: `python follow.py DOCUMENT`, in the folder in which it is to be followed.

Of the document's part up to the heading "The hooks", a code block without a language is a list of commands, which are
run by a shell that stops at the first failure; a block with one is a file, named at the end of the line before it
(`NAME`:). Blocks marked `text` show what a command prints: every line of them must be in what the last commands
printed.
"""

import re
import subprocess
import sys
from pathlib import Path

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`([\w./-]+)`[^`\n]*:\n\n$")


def follow(document: Path) -> None:
    text = document.read_text(encoding="utf-8").partition("\n## The hooks\n")[0]
    printed = ""
    for block in BLOCK.finditer(text):
        language, content = block.groups()
        if language == "text":
            missing = [line for line in content.splitlines() if line.strip() not in printed]
            if missing:
                sys.exit(f"{document.name}: this was not printed: {missing[0]}")
        elif language:
            named = FILE.search(text[: block.start()])
            if named is None:
                sys.exit(f"{document.name}: this file has no name: {content.splitlines()[0]}")
            file = Path(named[1])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
            print(f"wrote {file}")
        else:
            print(f"$ {content}", end="", flush=True)
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", content], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            printed = done.stdout
            print(printed, end="", flush=True)
            if done.returncode:
                sys.exit(f"{document.name}: these commands fail with status {done.returncode}: {content}")


if __name__ == "__main__":
    follow(Path(sys.argv[1]))
