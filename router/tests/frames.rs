//! Clients that speak HTTP/2 byte by byte, to do harm.

use std::time::Duration;

use router::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{LONG, World, get, named, raw};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short one").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `GET http://shop.localhost/`, without any compression but that of the static table (RFC 7541 appendix A).
fn get_block() -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84, 0x01, 14];
    block.extend_from_slice(b"shop.localhost");
    block
}

async fn connect(world: &World) -> TcpStream {
    let mut stream = TcpStream::connect(world.address).await.expect("a connection");
    stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.expect("sent");
    stream
}

/// Sends what `next` makes until the router has enough, and returns how much that was and the code of its goodbye.
async fn flood(mut stream: TcpStream, most: usize, mut next: impl FnMut(u32) -> Vec<u8>) -> (usize, Option<u32>) {
    let (mut reader, mut writer) = stream.split();
    let mut sent = 0;
    let write = async {
        for number in 0.. {
            let bytes = next(number);
            if sent >= most || writer.write_all(&bytes).await.is_err() {
                break;
            }
            sent += bytes.len();
        }
    };
    let read = async {
        let mut code = None;
        let mut head = [0; 9];
        while reader.read_exact(&mut head).await.is_ok() {
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            if reader.read_exact(&mut payload).await.is_err() {
                break;
            }
            if head[3] == GOAWAY {
                code = Some(u32::from_be_bytes(payload[4..8].try_into().expect("four bytes")));
            }
        }
        code
    };
    let ((), code) = tokio::time::timeout(LONG, async { tokio::join!(write, read) }).await.expect("it ends");
    (sent, code)
}

const ENHANCE_YOUR_CALM: Option<u32> = Some(11);

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_back_requests_as_fast_as_it_makes_them_is_cut_off() {
    let world = World::new(Timeouts::default()).await;
    let silent = raw("silent", |mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    world.serve("shop", &[&silent]).await;
    world.serve("other", &[&named("other").await]).await;
    let open = |number: u32| frame(HEADERS, END_STREAM | END_HEADERS, number * 2 + 1, &get_block());
    let reset = |number: u32| frame(RST_STREAM, 0, number * 2 + 1, &8_u32.to_be_bytes());
    // All at once, which nobody looks at.
    let at_once = |number: u32| {
        let numbers = (0..1000).map(|one| number * 1000 + one);
        numbers.flat_map(|one| [open(one), reset(one)].concat()).collect()
    };
    let (sent, code) = flood(connect(&world).await, 64 << 20, at_once).await;
    assert!(code == ENHANCE_YOUR_CALM && sent < 8 << 20, "{code:?} after {sent} bytes");
    // Slowly enough for each to be on its way to the app.
    let mut stream = connect(&world).await;
    let slowly = async {
        for number in 0..10_000 {
            let ping = frame(PING, 0, 0, &[0; 8]);
            if stream.write_all(&[open(number), ping].concat()).await.is_err() {
                return number;
            }
            let mut heard = vec![0; 8192];
            if stream.read(&mut heard).await.unwrap_or(0) == 0 {
                return number;
            }
            if stream.write_all(&reset(number)).await.is_err() {
                return number;
            }
        }
        10_000
    };
    let taken_back = tokio::time::timeout(LONG, slowly).await.expect("it ends");
    assert!((500..2000).contains(&taken_back), "after {taken_back} requests");
    assert!(get(world.address, "other", "/").await.ends_with("other"), "others are served");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_never_ends_is_cut_off() {
    let world = World::new(Timeouts::default()).await;
    world.serve("shop", &[&named("one").await]).await;
    // A header of 16 KiB that is never looked up again, over and over; and frames that carry nothing at all.
    let large = [&[0x00, 1, b'x', 0x7f, 0x81, 0x7f][..], &vec![b'y'; 16_384]].concat();
    for piece in [large, Vec::new(), vec![0x82]] {
        let endless = |number: u32| match number {
            0 => frame(HEADERS, END_STREAM, 1, &get_block()),
            _ => frame(CONTINUATION, 0, 1, &piece[..piece.len().min(16_384)]),
        };
        let (sent, code) = flood(connect(&world).await, 64 << 20, endless).await;
        assert!(code.is_some_and(|code| code != 0) && sent < 8 << 20, "{code:?} after {sent} bytes");
    }
    assert!(get(world.address, "shop", "/").await.ends_with("one"), "others are served");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_stops_in_the_middle_is_not_waited_for() {
    let world = World::new(Timeouts { client_idle: Duration::from_secs(1), ..Timeouts::default() }).await;
    let mut stream = connect(&world).await;
    stream.write_all(&frame(HEADERS, END_STREAM, 1, &get_block())).await.expect("sent");
    tokio::time::timeout(LONG, stream.read_to_end(&mut Vec::new())).await.expect("it ends").expect("readable");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_streams_at_once_than_allowed_are_refused() {
    let world = World::new(Timeouts::default()).await;
    let silent = raw("silent", |mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    world.serve("shop", &[&silent]).await;
    let mut stream = connect(&world).await;
    let open = |number: u32| frame(HEADERS, END_STREAM | END_HEADERS, number * 2 + 1, &get_block());
    let all: Vec<u8> = (0..200).flat_map(open).collect();
    stream.write_all(&all).await.expect("sent");
    let mut refused = 0;
    let mut head = [0; 9];
    while refused < 72 {
        tokio::time::timeout(LONG, stream.read_exact(&mut head)).await.expect("in time").expect("a frame");
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).await.expect("a payload");
        if head[3] == RST_STREAM {
            assert_eq!(payload, 7_u32.to_be_bytes(), "REFUSED_STREAM: it may be sent again");
            refused += 1;
        }
    }
}
