#!/usr/bin/env bash
# Has a client of gRPC's own library call a server of it through the router, in every way that there is to call, and fails if anything differs from what
# gRPC says. The server ends each of its connections after a while, as servers behind load balancers do.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

from_pypi grpcio 1.85.1
cargo build --quiet -p router --example router
work=$(mktemp -d)
jobs=()
trap 'kill "${jobs[@]}" 2>/dev/null || true; rm -rf "$work"' EXIT
app=$(free_port)
cat >"$work/server.py" <<'PYTHON'
import sys, threading
from concurrent import futures
import grpc

ended = threading.Event()

def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-first", metadata.get("x-said", "")),))
    context.set_trailing_metadata((("x-last-bin", bytes(range(256))),))
    return request

def down(request, context):
    for number in range(int(request)):
        yield str(number).encode()

def up(requests, context):
    return str(sum(len(request) for request in requests)).encode()

def both(requests, context):
    for request in requests:
        yield request

def failing(request, context):
    context.set_trailing_metadata((("x-why", "nobody is there"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: ü")

def endless(request, context):
    ended.clear()
    context.add_callback(ended.set)
    yield b"begun"
    ended.wait()

def was_ended(request, context):
    return b"yes" if ended.wait(20) else b"no"

kinds = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Down": grpc.unary_stream_rpc_method_handler(down),
    "Up": grpc.stream_unary_rpc_method_handler(up),
    "Both": grpc.stream_stream_rpc_method_handler(both),
    "Failing": grpc.unary_unary_rpc_method_handler(failing),
    "Endless": grpc.unary_stream_rpc_method_handler(endless),
    "WasEnded": grpc.unary_unary_rpc_method_handler(was_ended),
}
options = (("grpc.max_connection_age_ms", 700), ("grpc.max_receive_message_length", -1), ("grpc.max_concurrent_streams", 20))
server = grpc.server(futures.ThreadPoolExecutor(80), options=options)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", kinds),))
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
PYTHON
"$venv/bin/python" "$work/server.py" "$app" &
jobs+=($!)
router=$(free_port)
"${CARGO_TARGET_DIR:-target}/debug/examples/router" serve --folder "$work" --listen "127.0.0.1:$router" --hosts 1 --host localhost \
    --routing app_protocol=h2c --routing retries=off --routing first_byte_timeout=10s --workers 2 --upstream "127.0.0.1:$app" 2>/dev/null &
jobs+=($!)
wait_for_port "$app"
wait_for_port "$router"
cat >"$work/client.py" <<'PYTHON'
import queue, sys, time
from concurrent import futures
import grpc

PATIENCE = 20
# What fails is to be seen, not tried again.
options = (("grpc.enable_retries", 0), ("grpc.max_receive_message_length", -1))
channel = grpc.insecure_channel(f"localhost:{sys.argv[1]}", options=options)

def called(kind, name):
    call = getattr(channel, kind)(f"/t.T/{name}")
    return lambda request, **more: call(request, **{"timeout": PATIENCE, **more})

unary, down = called("unary_unary", "Unary"), called("unary_stream", "Down")
up, both = called("stream_unary", "Up"), called("stream_stream", "Both")

def routed():
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return unary(b"hello")
        except grpc.RpcError:
            assert time.monotonic() < end, "the router does not route to the app"
            time.sleep(0.1)

def metadata_and_messages_of_any_size():
    for size in (0, 1, 1000, 100_000, 3_000_000):
        answer, call = channel.unary_unary("/t.T/Unary").with_call(b"x" * size, timeout=PATIENCE, metadata=(("x-said", "this"),))
        assert answer == b"x" * size, size
        assert dict(call.initial_metadata())["x-first"] == "this"
        assert dict(call.trailing_metadata())["x-last-bin"] == bytes(range(256))

def streams_down():
    assert [int(number) for number in down(b"5000")] == list(range(5000))
    assert list(down(b"0")) == []

def streams_up():
    assert up(iter([b"x" * 10_000] * 500)) == b"5000000"
    assert up(iter([])) == b"0"

def streams_both_ways():
    said = queue.Queue()
    answers = both(iter(said.get, None))
    for number in range(300):
        said.put(str(number).encode())
        assert next(answers) == str(number).encode()
    said.put(None)
    assert list(answers) == []

def errors():
    try:
        called("unary_unary", "Failing")(b"")
        raise AssertionError("it fails")
    except grpc.RpcError as error:
        assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing: ü")
        assert dict(error.trailing_metadata())["x-why"] == "nobody is there"
    try:
        called("unary_unary", "Missing")(b"")
        raise AssertionError("it fails")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error

def who_hangs_up_is_heard():
    call = called("unary_stream", "Endless")(b"")
    assert next(call) == b"begun"
    call.cancel()
    assert called("unary_unary", "WasEnded")(b"") == b"yes"

def who_has_no_more_time_is_heard():
    call = called("unary_stream", "Endless")(b"", timeout=2)
    try:
        list(call)
        raise AssertionError("it ends")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert called("unary_unary", "WasEnded")(b"") == b"yes"

def no_call_fails_while_connections_end():
    end, calls = time.monotonic() + 8, 0
    with futures.ThreadPoolExecutor(60) as threads:
        def visit(number):
            count = 0
            while time.monotonic() < end:
                assert unary(str(number).encode()) == str(number).encode()
                assert [int(it) for it in down(b"20")] == list(range(20))
                count += 2
            return count
        calls = sum(threads.map(visit, range(60)))
    print(f"grpc: {calls} calls of 60 callers at once while the server ended each of its connections after 0.7 s", file=sys.stderr)

routed()
for case in (metadata_and_messages_of_any_size, streams_down, streams_up, streams_both_ways, errors, who_hangs_up_is_heard,
             who_has_no_more_time_is_heard, no_call_fails_while_connections_end):
    try:
        case()
    except Exception as error:
        sys.exit(f"grpc: {case.__name__}: {error!r}")
print("grpc: every way to call works through the router")
PYTHON
"$venv/bin/python" "$work/client.py" "$router"
