"""``python -m trt_cam.cli`` is ``trt-cam``."""

from trt_cam.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
