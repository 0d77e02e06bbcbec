//! HTTP/1.1 as the generator speaks it: one request at a time, answers with a `Content-Length`.

use std::time::Instant;

use crate::{Done, Failure, Wire};

/// Longest answer that is read: heads and small bodies.
const ANSWER_MAX: usize = 16 * 1024;

/// One connection.
pub(crate) struct Http1 {
    request: Vec<u8>,
    answer: Vec<u8>,
    due: Option<Instant>,
    is_closing: bool,
}

impl Http1 {
    /// With a body of so many bytes the request is a POST.
    pub(crate) fn new(path: &str, headers: &[(String, String)], body: usize) -> Self {
        let method = if body == 0 { "GET" } else { "POST" };
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: bench.local\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        if body > 0 {
            request += &format!("content-length: {body}\r\n");
        }
        let request = [(request + "\r\n").as_bytes(), &vec![b'x'; body]].concat();
        Self { request, answer: Vec::new(), due: None, is_closing: false }
    }
}

impl Wire for Http1 {
    fn ask(&mut self, due: Instant, out: &mut Vec<u8>) -> bool {
        if self.due.is_some() {
            return false;
        }
        self.due = Some(due);
        out.extend_from_slice(&self.request);
        true
    }

    fn take(&mut self, bytes: &[u8], _: &mut Vec<u8>, done: &mut Vec<Done>) -> Result<(), Failure> {
        self.answer.extend_from_slice(bytes);
        if self.answer.len() > ANSWER_MAX {
            return Err("the answer is too long".into());
        }
        let Some(end) = self.answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(());
        };
        let head = std::str::from_utf8(&self.answer[..end])?.to_ascii_lowercase();
        let length = head.split("\r\ncontent-length:").nth(1).ok_or("no content-length")?;
        let length: usize = length.split("\r\n").next().unwrap_or_default().trim().parse()?;
        if self.answer.len() < end + 4 + length {
            return Ok(());
        }
        let due = self.due.take().ok_or("an answer to nothing")?;
        done.push(Done { due, is_good: head.starts_with("http/1.1 200") });
        self.is_closing = head.contains("\r\nconnection: close");
        self.answer.clear();
        Ok(())
    }

    fn is_closing(&self) -> bool {
        self.is_closing
    }

    fn unanswered(&mut self) -> Vec<Instant> {
        self.due.into_iter().collect()
    }
}
