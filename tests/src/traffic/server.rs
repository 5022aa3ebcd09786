//! A pod: answers every connection, line and datagram with who it is and whom it saw.

use std::io::{self, Write};
use std::net;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::socket::{listening, plain};
use super::{Answer, Place, Protocol};

/// The line that [`serve`] prints when all its sockets are open.
pub(super) const READY: &str = "ready";

/// Serves at these places until the process is killed.
///
/// A connection gets one [`Answer`] as a line of JSON when it is accepted, and one more for every line
/// that it sends; it stays open until the client closes it. A datagram gets one.
pub fn serve(name: &str, places: &[Place]) -> Result<()> {
    // One thread for all connections: changing from one to another costs the test kernel much.
    let runtime = Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for place in places {
            let socket = listening(*place).with_context(|| format!("listen at {place}"))?;
            let name = name.to_owned();
            if place.protocol == Protocol::Udp {
                let socket = net::UdpSocket::from(socket);
                socket.set_nonblocking(true)?;
                tasks.spawn(datagrams(name, UdpSocket::from_std(socket)?));
            } else {
                // The accepted sockets of SCTP's one-to-one style are used as those of TCP.
                let socket = net::TcpListener::from(socket);
                socket.set_nonblocking(true)?;
                tasks.spawn(connections(name, TcpListener::from_std(socket)?));
            }
        }
        let mut output = io::stdout();
        writeln!(output, "{READY}")
            .and_then(|()| output.flush())
            .context("say that it is ready")?;
        // A task ends only by a panic, which has said what it is.
        tasks.join_all().await;
        Ok(())
    })
}

async fn connections(name: String, listener: TcpListener) {
    loop {
        // A client that is gone before it is accepted is no reason to stop.
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(conversation(name.clone(), stream));
        }
    }
}

/// Ends when the client closes, or is gone.
async fn conversation(name: String, mut stream: TcpStream) -> io::Result<()> {
    let (peer, local) = (plain(stream.peer_addr()?), plain(stream.local_addr()?));
    let answer = line(&Answer { name, peer, local })?;
    stream.write_all(&answer).await?;
    let mut stream = BufReader::new(stream);
    let mut question = String::new();
    while stream.read_line(&mut question).await? > 0 {
        stream.write_all(&answer).await?;
        question.clear();
    }
    Ok(())
}

async fn datagrams(name: String, socket: UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        // An error here is an ICMP message about an earlier answer.
        let Ok((_, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let local = socket.local_addr().map_or(peer, plain);
        if let Ok(answer) = line(&Answer { name: name.clone(), peer: plain(peer), local }) {
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

fn line(answer: &Answer) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    Ok(line)
}
