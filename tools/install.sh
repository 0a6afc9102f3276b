#!/bin/sh
# Fill the environment of an image, /opt/app, with pip from /opt/pip (Dockerfile, singularity/).
#   sh tools/install.sh torch [INDEX]   from torch-*.whl in this folder if it is there, else INDEX
#   sh tools/install.sh dependencies    what pyproject.toml names, less what is never run
#   sh tools/install.sh app FOLDER      the project itself, as files to lay over /opt/app
# Versions are those of constraints.txt. pip stays outside /opt/app: the image has no use for it.
set -eu

install() {
    /opt/pip/bin/pip --python /opt/app/bin/python --disable-pip-version-check \
        install --no-cache-dir --no-compile --constraint constraints.txt "$@"
}

# Tests of packages, headers, stubs. The tests of the image run the app without them.
slim() {
    packages=$(echo /opt/app/lib/python3*/site-packages)
    # numpy.testing, which scipy imports, needs one module of numpy's tests
    find "$packages" -type d \( -name tests -o -name test \) -not -path "$packages/numpy/*" \
        -prune -exec rm -rf {} +
    find "$packages" -type f \
        \( -name '*.pyi' -o -name '*.pxd' -o -name '*.pyx' -o -name '*.a' \) -delete
    # torch_shm_manager, in bin, is how its processes share memory
    rm -rf "$packages"/torch/include "$packages"/torch/share/cmake
    find "$packages"/torch/bin -type f -not -name torch_shm_manager -delete
    rm -f "$packages"/torch/lib/*_test.so "$packages"/torch/lib/libbackend_with_compiler.so \
        "$packages"/torch/lib/libaoti_custom_ops.so
}

# Byte code, since nobody can write it later. Some packages hold files that are no Python 3 code.
compile() {
    /opt/app/bin/python -m compileall -q -q -j 0 "$1" || true
}

case $1 in
torch)
    set -- "${2:-}" torch-*.whl
    if [ -e "$2" ]; then
        install --no-deps "./$2"
    else
        install --index-url "$1" torch
    fi
    ;;
dependencies)
    /opt/app/bin/python - <<'END' >/tmp/requirements.txt
import tomllib
with open("pyproject.toml", "rb") as stream:
    print("\n".join(tomllib.load(stream)["project"]["dependencies"]))
END
    install --requirement /tmp/requirements.txt
    rm /tmp/requirements.txt
    slim
    compile /opt/app/lib
    ;;
app)
    install --no-deps --prefix "$2" .
    compile "$2"/lib
    ;;
esac
