//! The client's end: connect and count, hold connections, or a steady rate.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

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

/// Opens all connections, reports, then asks every connection once more for every line on standard
/// input and reports again; closes them at the end of the input.
pub fn hold(load: &Load) -> io::Result<()> {
    let mut report = Report::default();
    let mut open = Vec::new();
    for _ in 0..load.times {
        let conversation = Conversation::open(load).and_then(|mut conversation| {
            report.count(&Ok(conversation.read()?));
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

/// New connections (or datagrams of new sockets) at an even pace; each in a thread of its own, so that
/// one that waits does not slow the others down.
pub fn rate(load: &Load, per_second: u32) -> Report {
    let begin = Instant::now();
    let pause = Duration::from_secs(1) / per_second.max(1);
    let tries: Vec<_> = (0..load.times)
        .map(|number| {
            thread::sleep((begin + pause * number).saturating_duration_since(Instant::now()));
            let load = load.clone();
            thread::spawn(move || once(&load))
        })
        .collect();
    let mut report = Report::default();
    for attempt in tries {
        let result =
            attempt.join().unwrap_or_else(|_| Err(io::Error::other("the client panicked")));
        report.count(&result);
    }
    report
}

/// One connection, one answer, and closed; or one datagram and its answer.
fn once(load: &Load) -> io::Result<Answer> {
    if load.to.protocol == Protocol::Udp {
        ask_udp(&udp(load)?)
    } else {
        Conversation::open(load)?.read()
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

fn print(report: &Report) -> io::Result<()> {
    let mut output = io::stdout();
    writeln!(output, "{}", serde_json::to_string(report)?)?;
    output.flush()
}

/// A connection that is open.
struct Conversation(BufReader<TcpStream>);

// === impl Conversation ===

impl Conversation {
    fn open(load: &Load) -> io::Result<Self> {
        if load.to.protocol == Protocol::Udp {
            return Err(io::Error::other("UDP has no connections to hold"));
        }
        let socket = connected(load.to, load.source, Duration::from_millis(load.timeout))?;
        Ok(Self(BufReader::new(socket.into())))
    }

    fn read(&mut self) -> io::Result<Answer> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    }

    fn ask(&mut self) -> io::Result<Answer> {
        self.0.get_mut().write_all(b"who\n")?;
        self.read()
    }
}
