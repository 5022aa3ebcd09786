//! One HTTP request, as short as it can be, and a server that answers one.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread::JoinHandle;

/// Where the daemon answers for its metrics and pages.
pub const METRICS: &str = "127.0.0.1:10249";

/// What a server says to `GET PATH`: the head and the body.
///
/// # Errors
/// Nobody is there, or what it says is not UTF-8.
pub fn get(address: impl ToSocketAddrs, path: &str) -> io::Result<(String, String)> {
    let mut stream = TcpStream::connect(address)?;
    // HTTP/1.0: the answer ends with the connection, in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Ok((head.to_owned(), body.to_owned()))
}

/// Gives this answer to the first request at a free port of this machine, then ends.
///
/// # Errors
/// There is no port, or, of the thread, nobody has asked in full.
pub fn answer_once(answer: String) -> io::Result<(SocketAddr, JoinHandle<io::Result<()>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut request = BufReader::new(&stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if request.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        stream.write_all(answer.as_bytes())
    });
    Ok((address, answering))
}
