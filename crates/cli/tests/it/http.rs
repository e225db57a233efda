//! As little of HTTP as it takes to talk to a daemon, and to notice when it is gone.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
};

/// What a daemon answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// None if it is not whole, as when the daemon was killed.
    fn parse(mut bytes: Vec<u8>) -> Option<Self> {
        let header_end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let body = bytes.split_off(header_end + 4);
        let status = std::str::from_utf8(&bytes).ok()?.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, body })
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends one request; none if the daemon did not answer.
pub(crate) fn request(address: &str, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
    let exchange = || -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(address)?;
        write!(
            stream,
            "{method} /{path} HTTP/1.1\r\nHost: granary\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        )?;
        // It may answer, and close, before it has read everything.
        let sent = stream.write_all(body);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if answer.is_empty() => Err(error),
            _ if answer.is_empty() => sent.map(|()| answer),
            _ => Ok(answer),
        }
    };
    Answer::parse(exchange().ok()?)
}

/// The body of the answer to a GET, which must succeed.
pub(crate) fn get(address: &str, path: &str) -> Vec<u8> {
    let answer = request(address, "GET", path, &[]).expect("it answers");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.body
}
