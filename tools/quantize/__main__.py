import sys

from quantize.quantize import main

sys.exit(main())
