# `make demo` and `make test` do all the set-up they need on a fresh Debian or Ubuntu machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
# glibc gives freed memory back at once by default, which costs torch's training loop a third.
export MALLOC_TOP_PAD_ := 268435456
export MALLOC_TRIM_THRESHOLD_ := 1073741824

.PHONY: setup demo test test-slow lint bench clean

setup: $(STAMP)

demo: setup
	$(BIN)/ros-vla-accel demo $(ARGS)

test: setup lint
	$(BIN)/python -m pytest -q --durations=10 $(ARGS)

# The report's tests need a browser and stand aside without one; here it is fetched.
test-slow: setup
	@command -v chromium >/dev/null || { $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; }
	$(BIN)/python -m pytest -q -m slow $(ARGS)
	$(BIN)/python -m pytest -q test/replay/test_report_browser.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: setup
	mkdir -p runs
	$(BIN)/ros-vla-accel bench ros --json runs/bench_ros.json
	$(BIN)/ros-vla-accel bench policy --json runs/bench_policy.json
	$(BIN)/ros-vla-accel bench trigger --json runs/bench_trigger.json
	$(BIN)/ros-vla-accel bench kernels --json runs/bench_kernels.json
	$(BIN)/ros-vla-accel bench memory --json runs/bench_memory.json
	$(BIN)/ros-vla-accel bench quantization --json runs/bench_quantization.json
	$(BIN)/ros-vla-accel bench moeca --json runs/bench_moeca.json --png runs/bench_moeca.png
	$(BIN)/ros-vla-accel bench moeca --scale --json runs/bench_moeca_scale.json
	$(BIN)/ros-vla-accel bench engines --json runs/bench_engines.json
	$(BIN)/ros-vla-accel bench replay --json runs/bench_replay.json
	$(BIN)/ros-vla-accel bench transport --json runs/bench_transport.json
	$(BIN)/ros-vla-accel bench partition --json runs/bench_partition.json
	$(BIN)/ros-vla-accel bench load --json runs/bench_load.json

clean:
	rm -rf $(VENV) build dist runs *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# System libraries only when missing: off-screen OpenGL for MuJoCo, and venv on Debian's Python.
# torch comes first and alone, so that no other package can pull in a build with CUDA; a resolver
# that would bring CUDA is sent to PyTorch's own index of CPU builds.
$(STAMP): pyproject.toml setup.py constraints/cpu.txt
	@missing=""; \
	ldconfig -p | grep -q libEGL.so.1 || missing="$$missing libegl1"; \
	ldconfig -p | grep -q libGL.so.1 || missing="$$missing libgl1"; \
	ldconfig -p | grep -q libOSMesa.so || missing="$$missing libosmesa6"; \
	ls /usr/lib/*/dri/*_dri.so >/dev/null 2>&1 || missing="$$missing libgl1-mesa-dri"; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || missing="$$missing python3-venv"; \
	if [ -n "$$missing" ]; then echo "installing$$missing"; \
	  $(SUDO) apt-get update -qq && \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; fi
	$(PYTHON) -m venv $(VENV)
	touch $(VENV)/COLCON_IGNORE
	$(BIN)/python -m pip install -q --upgrade pip
	@$(BIN)/python -c 'import torch' 2>/dev/null || { \
	  index=""; \
	  if $(BIN)/pip install -q --dry-run --report - -c constraints/cpu.txt torch | grep -q '"name": "nvidia-'; \
	  then index="--index-url $(TORCH_CPU_INDEX)"; fi; \
	  echo "installing torch (CPU)"; $(BIN)/pip install -q -c constraints/cpu.txt $$index torch; }
	$(BIN)/pip install -q -c constraints/cpu.txt -e '.[policy,onnx,tensorrt,cloud,ray,standalone,sim,fk,train,report,view,dev]'
	touch $@
