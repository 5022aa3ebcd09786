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
