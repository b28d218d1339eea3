"""Make the README's pictures of the default model anew: docs/swaps.png and docs/serve.webp.

    pip install -e ".[test]" && python docs/pictures.py

To be run when the default model, mask or page changes. docs/serve.py needs chromium and chromedriver.
"""

import serve
import swaps

if __name__ == "__main__":
    swaps.main()
    serve.main()
