//! A pod: answers every connection, line and datagram with who it is and whom it saw.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread;

use anyhow::{Context, Result};

use super::socket::{listening, plain};
use super::{Answer, Place, Protocol};

/// The line that [`serve`] prints when all its sockets are open.
pub(super) const READY: &str = "ready";

/// Serves at these places until the process is killed.
///
/// A connection gets one [`Answer`] as a line of JSON when it is accepted, and one more for every line
/// that it sends; it stays open until the client closes it. A datagram gets one.
pub fn serve(name: &str, places: &[Place]) -> Result<()> {
    let mut threads = Vec::new();
    for place in places {
        let socket = listening(*place).with_context(|| format!("listen at {place}"))?;
        let name = name.to_owned();
        threads.push(match place.protocol {
            Protocol::Udp => thread::spawn(move || datagrams(&name, &UdpSocket::from(socket))),
            // The accepted sockets of SCTP's one-to-one style are used as those of TCP.
            Protocol::Tcp | Protocol::Sctp => {
                thread::spawn(move || connections(&name, &TcpListener::from(socket)))
            }
        });
    }
    let mut output = io::stdout();
    writeln!(output, "{READY}").and_then(|()| output.flush()).context("say that it is ready")?;
    for thread in threads {
        // A thread ends only by a panic, which has said what it is.
        let _ = thread.join();
    }
    Ok(())
}

fn connections(name: &str, listener: &TcpListener) {
    loop {
        // A client that is gone before it is accepted is no reason to stop.
        if let Ok((stream, _)) = listener.accept() {
            let name = name.to_owned();
            thread::spawn(move || conversation(&name, stream));
        }
    }
}

/// Ends when the client closes, or is gone.
fn conversation(name: &str, mut stream: TcpStream) -> io::Result<()> {
    let (peer, local) = (plain(stream.peer_addr()?), plain(stream.local_addr()?));
    let answer = line(&Answer { name: name.to_owned(), peer, local })?;
    stream.write_all(&answer)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut question = String::new();
    while reader.read_line(&mut question)? > 0 {
        stream.write_all(&answer)?;
        question.clear();
    }
    Ok(())
}

fn datagrams(name: &str, socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        // An error here is an ICMP message about an earlier answer.
        let Ok((_, peer)) = socket.recv_from(&mut buffer) else { continue };
        let local = socket.local_addr().map_or(peer, plain);
        if let Ok(answer) = line(&Answer { name: name.to_owned(), peer: plain(peer), local }) {
            let _ = socket.send_to(&answer, peer);
        }
    }
}

fn line(answer: &Answer) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    Ok(line)
}
