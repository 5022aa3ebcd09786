//! Clients that never finish, ask for too much, or are too many.

use super::*;
use server::{HEALTH, text};

struct Fine;

impl Handler for Fine {
    async fn answer(&self, _: &hyper::Request<hyper::body::Incoming>) -> server::Response {
        text(hyper::StatusCode::OK, "fine")
    }
}

fn start(limits: Limits) -> (SocketAddr, JoinSet<()>) {
    let listener = server::listen(any(), false).unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(server::serve(listener, Arc::new(Fine), limits));
    (address, tasks)
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_ends_the_connection() {
    let (address, _tasks) = start(HEALTH);
    let started = Instant::now();
    assert_eq!(exchange(address, "GET / HTTP/1.1\r\nHost").await, "");
    assert_eq!(started.elapsed().as_secs(), HEALTH.head.as_secs());

    // The same for one that says nothing after an answer.
    let started = Instant::now();
    let answer = exchange(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!((code(&answer), body(&answer)), ("200", "fine"));
    assert_eq!(started.elapsed().as_secs(), HEALTH.head.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_head_may_be_only_so_large() {
    let (address, _tasks) = start(HEALTH);
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(code(&exchange(address, &long).await), "431");
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100));
    assert_eq!(code(&exchange(address, &many).await), "431");
    let path = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000));
    assert!(["414", "431"].contains(&code(&exchange(address, &path).await)));
    assert_eq!(code(&exchange(address, "garbage\r\n\r\n").await), "400");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_ends_ends_the_connection() {
    let (address, _tasks) = start(HEALTH);
    let started = Instant::now();
    let answer =
        exchange(address, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx").await;
    assert_eq!(code(&answer), "200");
    assert!(started.elapsed() <= HEALTH.age + Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_keeps_asking_ends_some_day() {
    let limits = Limits { age: Duration::from_secs(30), ..HEALTH };
    let (address, _tasks) = start(limits);
    let stream = TcpStream::connect(address).await.unwrap();
    let mut answers = 0;
    for _ in 0..10 {
        advance(Duration::from_secs(5)).await;
        send(&stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        match next(&stream).await {
            end if end.is_empty() => break,
            _ => answers += 1,
        }
    }
    assert!((1..=6).contains(&answers), "{answers}");
}

#[tokio::test(start_paused = true)]
async fn the_oldest_connection_makes_room_for_a_new_one() {
    let (address, _tasks) = start(Limits { connections: 3, ..HEALTH });
    let mut idle = Vec::new();
    for _ in 0..3 {
        let stream = TcpStream::connect(address).await.unwrap();
        send(&stream, "GET / HTTP/1.1\r\n").await;
        idle.push(stream);
    }
    let started = Instant::now();
    assert_eq!(code(&get(address, "/").await), "200");
    assert_eq!(rest(&idle[0]).await, "");
    assert_eq!(started.elapsed(), Duration::ZERO, "no time limit was waited for");
    // The others are still served.
    send(&idle[1], "Connection: close\r\n\r\n").await;
    assert_eq!(code(&rest(&idle[1]).await), "200");
}

#[tokio::test(start_paused = true)]
async fn servers_that_share_room_end_the_oldest_connection_of_all() {
    let room = server::Room::new(3);
    let mut tasks = JoinSet::new();
    let mut addresses = Vec::new();
    for _ in 0..4 {
        let listener = server::listen(any(), false).unwrap();
        addresses.push(listener.local_addr().unwrap());
        let room = room.clone();
        tasks.spawn(async move {
            server::serve_in(listener, Arc::new(Fine), HEALTH, &room).await;
        });
    }
    let mut idle = Vec::new();
    for address in &addresses[..3] {
        let stream = TcpStream::connect(address).await.unwrap();
        send(&stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(!next(&stream).await.is_empty());
        idle.push(stream);
    }
    let started = Instant::now();
    assert_eq!(code(&get(addresses[3], "/").await), "200");
    assert_eq!(rest(&idle[0]).await, "");
    assert_eq!(started.elapsed(), Duration::ZERO, "no time limit was waited for");
    send(&idle[1], "GET / HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n").await;
    assert_eq!(code(&rest(&idle[1]).await), "200");
}

/// Answers that never end, in pieces that are counted.
#[derive(Default)]
struct Endless(Arc<std::sync::atomic::AtomicUsize>);

const PIECE: usize = 16 * 1024;

impl Handler for Endless {
    async fn answer(&self, _: &hyper::Request<hyper::body::Incoming>) -> server::Response {
        let made = self.0.clone();
        let piece = move || {
            made.fetch_add(PIECE, std::sync::atomic::Ordering::Relaxed);
            Some(Ok(vec![b'x'; PIECE].into()))
        };
        let pieces = std::iter::from_fn(piece);
        server::response(hyper::StatusCode::OK, "text/plain", body::Body::Pieces(Box::new(pieces)))
    }
}

fn count(made: &std::sync::atomic::AtomicUsize) -> usize {
    made.load(std::sync::atomic::Ordering::Relaxed)
}

/// Time passes only where a test says so, until this is dropped. Otherwise paused time jumps to the next
/// limit whenever everything waits, even if only for bytes that are under way.
fn held_clock() -> std::sync::mpsc::Sender<()> {
    let (held, end) = std::sync::mpsc::channel::<()>();
    // The clock stands while a blocking task runs; this one ends with its sender.
    tokio::task::spawn_blocking(move || end.recv());
    held
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_cut_off_and_holds_little() {
    let listener = server::listen(any(), false).unwrap();
    let address = listener.local_addr().unwrap();
    let made = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    tasks.spawn(server::serve(listener, Arc::new(Endless(made.clone())), HEALTH));

    let _clock = held_clock();
    let started = Instant::now();
    let stream = TcpStream::connect(address).await.unwrap();
    send(&stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    while count(&made) == 0 {
        tokio::task::yield_now().await;
    }
    // The pieces go when their connection does.
    while Arc::strong_count(&made) > 2 {
        advance(Duration::from_secs(1)).await;
        assert!(started.elapsed() <= server::STALL + Duration::from_secs(2), "still held");
    }
    assert!(started.elapsed() >= server::STALL, "cut off after {:?}", started.elapsed());
    let made = count(&made);
    assert!((PIECE..1 << 20).contains(&made), "{made} bytes were made for nobody");
}

/// One who reads is not, however long the answer is; but an answer ends some day.
#[tokio::test(start_paused = true)]
async fn who_reads_on_is_served_until_the_connection_is_old() {
    let listener = server::listen(any(), false).unwrap();
    let address = listener.local_addr().unwrap();
    let made = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    tasks.spawn(server::serve(listener, Arc::new(Endless(made.clone())), HEALTH));

    let _clock = held_clock();
    let started = Instant::now();
    let stream = TcpStream::connect(address).await.unwrap();
    send(&stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut read = 0;
    'answer: loop {
        // So much that the server can go on, and until it does.
        let before = count(&made);
        for pieces in 0.. {
            if pieces >= 200 && count(&made) > before {
                break;
            }
            match next(&stream).await.len() {
                0 => break 'answer,
                more => read += more,
            }
        }
        advance(Duration::from_secs(5)).await;
        let elapsed = started.elapsed();
        assert!(elapsed <= HEALTH.age + Duration::from_secs(16), "still served after {elapsed:?}");
    }
    assert!(read > 10 << 20, "{read}");
    assert!(started.elapsed() >= HEALTH.age, "cut off after {:?}", started.elapsed());
}

/// Connections from elsewhere cannot take the room of this node's, and one client not that of others.
#[tokio::test(start_paused = true)]
async fn a_flood_from_one_address_takes_nobody_elses_room() {
    let limits = Limits { connections: 3, ..HEALTH };
    let (address, _tasks) = start(limits);
    let from = |source: &str| {
        let source = format!("{source}:0").parse().unwrap();
        async move {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(source).unwrap();
            socket.connect(address).await.unwrap()
        }
    };
    let honest = from("127.0.0.2").await;
    send(&honest, "GET / HTTP/1.1\r\n").await;
    let mut floods = Vec::new();
    for _ in 0..20 {
        let flood = from("127.0.0.3").await;
        send(&flood, "GET / HTTP/1.1\r\n").await;
        // Taken in before the next one comes.
        tokio::task::yield_now().await;
        floods.push(flood);
    }
    send(&honest, "Connection: close\r\n\r\n").await;
    assert_eq!(code(&rest(&honest).await), "200");
}

#[tokio::test(start_paused = true)]
async fn who_connects_from_this_node_is_known() {
    let listener = server::listen(any(), false).unwrap();
    let address = listener.local_addr().unwrap();
    let _client = TcpStream::connect(address).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    for (peer, near) in [("127.0.0.1", true), ("::1", true), ("192.0.2.1", false)] {
        assert_eq!(server::is_near(&stream, peer.parse().unwrap()), near, "{peer}");
    }
}
