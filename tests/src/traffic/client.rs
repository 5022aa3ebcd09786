//! The client's end: connect and count, or hold connections.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use super::socket::connected;
use super::{Answer, Load, Protocol, Report};

/// Connects (or sends) one after the other, and counts who answered, whom they saw, and what failed.
pub fn connect(load: &Load) -> Report {
    let mut report = Report::default();
    if load.to.protocol == Protocol::Udp && load.one_socket {
        match udp(load) {
            Ok(socket) => {
                for _ in 0..load.times {
                    report.count(&ask_udp(&socket));
                }
            }
            Err(error) => report.count(&Err(error)),
        }
    } else {
        for _ in 0..load.times {
            report.count(&once(load));
        }
    }
    report
}

/// Opens all connections (of UDP: flows, each from a socket of its own), reports, then asks every one
/// once more for every line on standard input and reports again; closes them at the end of the input.
pub fn hold(load: &Load) -> io::Result<()> {
    let mut report = Report::default();
    let mut open = Vec::new();
    for _ in 0..load.times {
        let conversation = Conversation::open(load).and_then(|mut conversation| {
            report.count(&Ok(conversation.first()?));
            Ok(conversation)
        });
        match conversation {
            Ok(conversation) => open.push(conversation),
            Err(error) => report.count(&Err(error)),
        }
    }
    print(&report)?;
    for question in io::stdin().lines() {
        question?;
        let mut report = Report::default();
        for conversation in &mut open {
            report.count(&conversation.ask());
        }
        print(&report)?;
    }
    Ok(())
}

/// One connection, one answer, and closed; or one datagram and its answer.
fn once(load: &Load) -> io::Result<Answer> {
    if load.to.protocol == Protocol::Udp {
        ask_udp(&udp(load)?)
    } else {
        Conversation::open(load)?.first()
    }
}

fn udp(load: &Load) -> io::Result<UdpSocket> {
    // Connected, so that the kernel hands us the ICMP errors.
    Ok(connected(load.to, load.source, Duration::from_millis(load.timeout))?.into())
}

fn ask_udp(socket: &UdpSocket) -> io::Result<Answer> {
    socket.send(b"who\n")?;
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer)?;
    Ok(serde_json::from_slice(&buffer[..length])?)
}

pub(super) fn print(report: &Report) -> io::Result<()> {
    let mut output = io::stdout();
    writeln!(output, "{}", serde_json::to_string(report)?)?;
    output.flush()
}

/// A connection, or a flow of datagrams, that is open.
enum Conversation {
    Stream(BufReader<TcpStream>),
    Datagrams(UdpSocket),
}

// === impl Conversation ===

impl Conversation {
    fn open(load: &Load) -> io::Result<Self> {
        if load.to.protocol == Protocol::Udp {
            return Ok(Self::Datagrams(udp(load)?));
        }
        let socket = connected(load.to, load.source, Duration::from_millis(load.timeout))?;
        Ok(Self::Stream(BufReader::new(socket.into())))
    }

    /// The first answer, which a connection gets unasked.
    fn first(&mut self) -> io::Result<Answer> {
        match self {
            Self::Stream(stream) => read(stream),
            Self::Datagrams(socket) => ask_udp(socket),
        }
    }

    fn ask(&mut self) -> io::Result<Answer> {
        match self {
            Self::Stream(stream) => {
                stream.get_mut().write_all(b"who\n")?;
                read(stream)
            }
            Self::Datagrams(socket) => ask_udp(socket),
        }
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Answer> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}
