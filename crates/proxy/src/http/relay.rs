//! One request and its response under way between sides of any HTTP version, by one poll function.
//!
//! In:    a client's side, an endpoint's side, the desk, the deadlines.
//! Out:   [`Event`]s, as from a `Flight`.
//! Never: takes a piece from one side before the other has taken the last one.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};

use http::HeaderMap;
use sluis_rules::Metadata;
use tokio::time::Instant;

use super::{
    clock::Clock,
    desk::Desk,
    flight::{Deadline, Deadlines, Event},
    message::{ClientSide, EndpointSide, Sink},
    piece::{Fault, Piece},
    strand::{BODY_BYTES_MAX, Broken, Gathered, Strand},
};

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    piece: Option<Piece>,
    /// Whether the piece's bytes are still to be told to their source.
    is_owed: bool,
    /// Whether the sink has got everything.
    is_done: bool,
}

/// One try to get a response.
pub(super) struct Relay<'r, C, E> {
    pub(super) client: &'r mut C,
    pub(super) endpoint: &'r mut E,
    pub(super) desk: &'r mut Desk,
    clock: &'r mut Clock,
    replay_at: usize,
    up: Flow,
    down: Flow,
    /// What comes before what the endpoint still sends.
    ahead: VecDeque<Piece>,
    /// What has come of a response whose whole body a script waits for.
    gathering: Gathered,
    /// Whether a script waits before the response's head goes on.
    is_awaited: bool,
    /// What filters have found out of the request, while the relay goes on.
    pub(super) metadata: Metadata,
    pub(super) deadlines: Deadlines,
    /// How long the response may take once the request has been received.
    pub(super) response_time: Option<Duration>,
    pub(super) request_end: Option<Instant>,
    /// Whether the response's head has been dealt with and its body flows.
    pub(super) is_streaming: bool,
    pub(super) is_tunnel: bool,
    is_held: bool,
    /// Whether nothing follows the head that has come last.
    pub(super) head_ends: bool,
    /// The trailers of the response.
    pub(super) trailers: Option<HeaderMap>,
    pub(super) received: u64,
    pub(super) sent: u64,
    /// Whether the endpoint takes nothing more.
    pub(super) is_deaf: bool,
    /// Whether the client's trailers end here: they could name fields that only the proxy sets.
    pub(super) drops_request_trailers: bool,
    /// The same of the endpoint's.
    pub(super) drops_response_trailers: bool,
    moved: u64,
    idle_from: (u64, Instant),
}

/// Nothing more can be done now, or something was done.
type Step = Result<bool, Event>;

impl<'r, C: ClientSide, E: EndpointSide> Relay<'r, C, E> {
    pub(super) fn new(
        (client, endpoint): (&'r mut C, &'r mut E),
        desk: &'r mut Desk,
        clock: &'r mut Clock,
        now: Instant,
    ) -> Self {
        Self {
            client,
            endpoint,
            desk,
            clock,
            replay_at: 0,
            up: Flow::default(),
            down: Flow::default(),
            ahead: VecDeque::new(),
            gathering: Gathered::default(),
            is_awaited: false,
            metadata: Metadata::default(),
            deadlines: Deadlines::default(),
            response_time: None,
            request_end: None,
            is_streaming: false,
            is_tunnel: false,
            is_held: false,
            head_ends: false,
            trailers: None,
            received: 0,
            sent: 0,
            is_deaf: false,
            drops_request_trailers: false,
            drops_response_trailers: false,
            moved: 0,
            idle_from: (0, now),
        }
    }

    /// What the client sends waits until the endpoint agrees to an upgrade.
    pub(super) fn hold(&mut self) {
        self.is_held = true;
    }

    /// The request has no body: it ended with its head.
    pub(super) fn without_body(&mut self) {
        self.up.is_done = true;
    }

    /// Whether the endpoint has got the whole request.
    pub(super) fn is_request_sent(&self) -> bool {
        self.up.is_done && !self.is_deaf
    }

    /// A script waits before the response's head goes on.
    pub(super) fn wait_for_script(&mut self) {
        self.is_awaited = true;
    }

    /// The head of the response goes; a body that was held goes behind it.
    pub(super) fn release(&mut self, held: Gathered) {
        let Gathered { bytes, trailers, .. } = held;
        let has_trailers = trailers.is_some();
        if !bytes.is_empty() {
            self.ahead.push_back(Piece::Data(bytes.into(), !has_trailers));
        }
        if has_trailers || self.ahead.is_empty() {
            self.ahead.push_back(Piece::End(trailers));
        }
    }

    /// The response's head has gone to the client; whether its body follows.
    pub(super) fn begin_response(&mut self, ends: bool) {
        self.is_streaming = true;
        self.down.is_done = ends;
        self.moved += 1;
    }

    /// From here on both sides send what they like until one ends.
    pub(super) fn open_tunnel(&mut self) {
        self.is_tunnel = true;
        self.is_held = false;
        self.deadlines.response = None;
        self.up.is_done = false;
        self.endpoint.open_tunnel(self.desk);
    }

    /// Goes on until something has to be decided.
    pub(super) async fn next(&mut self) -> Event {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Whether a body follows the head that has come, and so many bytes of it are to be looked at.
    pub(super) fn has_body_to_scan(&self, bytes: usize) -> bool {
        let status = self.desk.response.status();
        bytes > 0 && !self.head_ends && status >= 200
    }

    /// Waits for so many bytes of the response's body, or all of it; they go on later. What ends
    /// the wait otherwise.
    pub(super) async fn gather(&mut self, bytes: usize) -> Option<Event> {
        poll_fn(|cx| {
            loop {
                match self.step_gather(cx, bytes) {
                    Ok(true) => self.moved += 1,
                    Ok(false) => break,
                    Err(ended) => return Poll::Ready(ended),
                }
            }
            self.poll_deadlines(cx).map(|late| Some(Event::Late(late)))
        })
        .await
    }

    /// What was gathered.
    pub(super) fn gathered(&self) -> Vec<u8> {
        let data = self.ahead.iter().filter_map(|piece| match piece {
            Piece::Data(data, _) => Some(data.iter().copied()),
            Piece::End(_) => None,
        });
        data.flatten().collect()
    }

    fn step_gather(&mut self, cx: &mut Context<'_>, bytes: usize) -> Result<bool, Option<Event>> {
        let moved = self.step_up(cx).map_err(Some)?;
        let ends = |piece: &Piece| matches!(piece, Piece::End(_) | Piece::Data(_, true));
        let held = |piece: &Piece| match piece {
            Piece::Data(data, _) => data.len(),
            Piece::End(_) => 0,
        };
        let is_enough = self.ahead.iter().map(held).sum::<usize>() >= bytes;
        if is_enough || self.ahead.back().is_some_and(ends) {
            return Err(None);
        }
        match self.endpoint.poll_piece(cx, self.desk) {
            Poll::Ready(Ok(piece)) => {
                if let Piece::Data(data, _) = &piece {
                    // What is held is bounded by what is wanted: the endpoint may send on.
                    self.endpoint.passed(data.len());
                }
                self.ahead.push_back(piece);
                Ok(true)
            }
            Poll::Ready(Err(fault)) => Err(Some(of_endpoint(fault))),
            Poll::Pending => Ok(moved),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            match self.step(cx) {
                Err(event) => return Poll::Ready(event),
                Ok(true) => self.moved += 1,
                Ok(false) => break,
            }
        }
        self.poll_deadlines(cx).map(Event::Late)
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Step {
        let mut moved = self.step_up(cx)?;
        if self.is_streaming {
            moved |= self.step_down(cx)?;
        } else if self.is_awaited {
            self.step_script(cx)?;
            if let Poll::Ready(Err(fault)) = self.client.poll_flush(cx, self.desk) {
                return Err(of_client(fault));
            }
        } else {
            match self.endpoint.poll_head(cx, self.desk) {
                Poll::Ready(Ok(ends)) => {
                    self.moved += 1;
                    self.head_ends = ends;
                    return Err(Event::Head);
                }
                Poll::Ready(Err(fault)) => return Err(of_endpoint(fault)),
                Poll::Pending => {}
            }
            // What was said before the response (100 Continue) has to leave.
            if let Poll::Ready(Err(fault)) = self.client.poll_flush(cx, self.desk) {
                return Err(of_client(fault));
            }
        }
        if (self.up.is_done || self.is_held)
            && let Poll::Ready(fault) = self.client.poll_gone(cx, self.desk)
        {
            return Err(of_client(fault));
        }
        Ok(moved)
    }

    /// Takes what a script waits for one piece further; an event when it is there.
    fn step_script(&mut self, cx: &mut Context<'_>) -> Result<(), Event> {
        if !self.desk.marks.scripts.wants_body() {
            if self.desk.marks.scripts.poll_answer(cx).is_ready() {
                self.is_awaited = false;
                return Err(Event::Script);
            }
            return Ok(());
        }
        while let Poll::Ready(piece) = self.poll_response_piece(cx)? {
            let is_last = match piece {
                Piece::Data(data, is_last) => {
                    self.gathering.bytes.extend_from_slice(&data);
                    if self.gathering.bytes.len() > BODY_BYTES_MAX {
                        return Err(Event::ResponseTooLong);
                    }
                    is_last
                }
                Piece::End(trailers) => {
                    self.gathering.trailers = trailers;
                    true
                }
            };
            self.moved += 1;
            if is_last {
                self.is_awaited = false;
                self.desk.marks.scripts.gathered = Some(std::mem::take(&mut self.gathering));
                return Err(Event::Script);
            }
        }
        Ok(())
    }

    /// The next piece of the response, as scripts leave it. Where they look at it the endpoint is
    /// told at once that it has gone on: one piece is held at a time, or a bounded whole.
    fn poll_response_piece(&mut self, cx: &mut Context<'_>) -> Result<Poll<Piece>, Event> {
        let mut strand = std::mem::take(&mut self.desk.marks.scripts.response);
        let (ahead, endpoint, desk) = (&mut self.ahead, &mut *self.endpoint, &mut *self.desk);
        let next = |cx: &mut Context<'_>| {
            if let Some(piece) = ahead.pop_front() {
                return Poll::Ready(Ok(piece));
            }
            let piece = endpoint.poll_piece(cx, desk);
            if let Poll::Ready(Ok(Piece::Data(data, _))) = &piece {
                endpoint.passed(data.len());
            }
            piece
        };
        let polled = through(&mut strand, cx, &mut self.metadata, next, of_endpoint);
        self.desk.marks.scripts.response = strand;
        polled
    }

    /// Takes the request's body one piece further.
    fn step_up(&mut self, cx: &mut Context<'_>) -> Step {
        if !self.is_deaf && matches!(self.endpoint.poll_flush(cx, self.desk), Poll::Ready(Err(_))) {
            self.is_deaf = true;
        }
        if self.up.is_done || self.is_held {
            return Ok(false);
        }
        if self.up.piece.is_none() {
            match self.take_request_piece(cx) {
                Poll::Ready(Ok(piece)) => self.up.piece = Some(piece),
                Poll::Ready(Err(event)) => return Err(event),
                Poll::Pending => return Ok(false),
            }
        }
        let given = match self.is_deaf {
            // It may have answered before it stopped: its answer is still to be read.
            true => discard(&mut self.up.piece),
            false => give(self.endpoint, &mut self.up.piece, cx, self.desk).unwrap_or_else(|_| {
                self.is_deaf = true;
                Given { has_moved: true, ..Given::default() }
            }),
        };
        if self.up.is_owed && given.len > 0 {
            self.client.passed(given.len);
        }
        self.up.is_done = given.is_done;
        Ok(given.has_moved)
    }

    /// The next piece: one that an earlier try had, else one from the client.
    fn take_request_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Event>> {
        if let Some(piece) = self.desk.replay.at(self.replay_at) {
            self.replay_at += 1;
            self.up.is_owed = false;
            return Poll::Ready(Ok(piece));
        }
        let is_watched = !self.desk.marks.scripts.request.is_idle();
        let piece = if is_watched {
            let mut strand = std::mem::take(&mut self.desk.marks.scripts.request);
            let (client, desk) = (&mut *self.client, &mut *self.desk);
            let next = |cx: &mut Context<'_>| {
                let piece = client.poll_piece(cx, desk);
                if let Poll::Ready(Ok(Piece::Data(data, _))) = &piece {
                    client.passed(data.len());
                }
                piece
            };
            let polled = through(&mut strand, cx, &mut self.metadata, next, of_client);
            self.desk.marks.scripts.request = strand;
            match polled {
                Ok(Poll::Ready(Piece::End(_))) if self.drops_request_trailers => Piece::End(None),
                Ok(Poll::Ready(piece)) => piece,
                Ok(Poll::Pending) => return Poll::Pending,
                Err(event) => return Poll::Ready(Err(event)),
            }
        } else {
            match self.client.poll_piece(cx, self.desk) {
                Poll::Ready(Ok(Piece::End(_))) if self.drops_request_trailers => Piece::End(None),
                Poll::Ready(Ok(piece)) => piece,
                Poll::Ready(Err(fault)) => return Poll::Ready(Err(of_client(fault))),
                Poll::Pending => return Poll::Pending,
            }
        };
        let is_last = match &piece {
            Piece::Data(data, is_last) => {
                self.received += data.len() as u64;
                // What is kept is bounded by itself: the client may send on. The rest of the
                // request only as the endpoint takes it.
                let is_kept = !self.is_tunnel && self.desk.replay.keep(data, *is_last);
                if is_kept {
                    self.replay_at += 1;
                }
                if is_kept && !is_watched {
                    self.client.passed(data.len());
                }
                self.up.is_owed = !is_kept && !is_watched;
                *is_last
            }
            Piece::End(trailers) => {
                self.desk.replay.end = Some(trailers.clone());
                true
            }
        };
        if is_last && !self.is_tunnel && self.request_end.is_none() {
            let now = Instant::now();
            self.request_end = Some(now);
            self.deadlines.request = None;
            self.deadlines.response = self.response_time.map(|time| now + time);
        }
        Poll::Ready(Ok(piece))
    }

    /// Takes the response's body one piece further.
    fn step_down(&mut self, cx: &mut Context<'_>) -> Step {
        if self.down.is_done {
            return match self.client.poll_flush(cx, self.desk) {
                Poll::Ready(Ok(())) => Err(Event::Complete),
                Poll::Ready(Err(fault)) => Err(of_client(fault)),
                Poll::Pending => Ok(false),
            };
        }
        if let Poll::Ready(Err(fault)) = self.client.poll_flush(cx, self.desk) {
            return Err(of_client(fault));
        }
        if self.down.piece.is_none() && self.is_down_watched() {
            match self.poll_response_piece(cx)? {
                Poll::Ready(mut piece) => {
                    if let Piece::End(trailers) = &mut piece
                        && self.drops_response_trailers
                    {
                        *trailers = None;
                    }
                    if let Piece::End(trailers) = &piece {
                        self.trailers.clone_from(trailers);
                    }
                    self.down.piece = Some(piece);
                    self.down.is_owed = false;
                }
                Poll::Pending => return Ok(false),
            }
        }
        if self.down.piece.is_none() {
            self.down.is_owed = true;
            match self.endpoint.poll_piece(cx, self.desk) {
                Poll::Ready(Ok(mut piece)) => {
                    if let Piece::End(trailers) = &mut piece
                        && self.drops_response_trailers
                    {
                        *trailers = None;
                    }
                    if let Piece::End(trailers) = &piece {
                        self.trailers.clone_from(trailers);
                    }
                    self.down.piece = Some(piece);
                }
                Poll::Ready(Err(fault)) => return Err(of_endpoint(fault)),
                Poll::Pending => return Ok(false),
            }
        }
        let given = give(self.client, &mut self.down.piece, cx, self.desk).map_err(of_client)?;
        self.sent += given.len as u64;
        if given.len > 0 && self.down.is_owed {
            self.endpoint.passed(given.len);
        }
        self.down.is_done = given.is_done;
        Ok(given.has_moved)
    }

    /// Whether pieces of the response are looked at, or held.
    fn is_down_watched(&self) -> bool {
        !self.is_tunnel && (!self.ahead.is_empty() || !self.desk.marks.scripts.response.is_idle())
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<Deadline> {
        let moved = (self.moved, self.is_streaming);
        self.deadlines.poll(cx, self.clock, moved, &mut self.idle_from)
    }
}

/// The next piece that comes through the scripts that watch.
fn through(
    strand: &mut Strand,
    cx: &mut Context<'_>,
    metadata: &mut Metadata,
    mut next: impl FnMut(&mut Context<'_>) -> Poll<Result<Piece, Fault>>,
    of_source: impl Fn(Fault) -> Event,
) -> Result<Poll<Piece>, Event> {
    let polled = if strand.is_idle() {
        next(cx).map_err(Broken::Fault)
    } else {
        strand.poll_through(cx, metadata, next)
    };
    match polled {
        Poll::Pending => Ok(Poll::Pending),
        Poll::Ready(Ok(piece)) => Ok(Poll::Ready(piece)),
        Poll::Ready(Err(Broken::Fault(fault))) => Err(of_source(fault)),
        Poll::Ready(Err(Broken::Script)) => Err(Event::ScriptFailed),
    }
}

/// What a sink has taken.
#[derive(Clone, Copy, Debug, Default)]
struct Given {
    len: usize,
    has_moved: bool,
    /// Whether it was the last of the message.
    is_done: bool,
}

/// Gives a piece, or as much of it as there is room for; the rest stays in the slot.
fn give(
    sink: &mut impl Sink,
    slot: &mut Option<Piece>,
    cx: &mut Context<'_>,
    desk: &mut Desk,
) -> Result<Given, Fault> {
    match slot.take() {
        None => Ok(Given::default()),
        Some(Piece::End(trailers)) => {
            sink.end(desk, trailers)?;
            Ok(Given { len: 0, has_moved: true, is_done: true })
        }
        Some(Piece::Data(mut data, is_last)) => {
            let Poll::Ready(room) = sink.poll_room(cx, desk, data.len())? else {
                *slot = Some(Piece::Data(data, is_last));
                return Ok(Given::default());
            };
            let part = data.split_to(room.min(data.len()));
            let (len, is_done) = (part.len(), is_last && data.is_empty());
            sink.data(desk, part, is_done)?;
            if !data.is_empty() {
                *slot = Some(Piece::Data(data, is_last));
            }
            Ok(Given { len, has_moved: true, is_done })
        }
    }
}

/// Throws a piece away that nobody takes.
fn discard(slot: &mut Option<Piece>) -> Given {
    match slot.take() {
        None => Given::default(),
        Some(Piece::End(_)) => Given { len: 0, has_moved: true, is_done: true },
        Some(Piece::Data(data, is_done)) => Given { len: data.len(), has_moved: true, is_done },
    }
}

/// What a fault of the client's side means.
pub(super) fn of_client(fault: Fault) -> Event {
    match fault {
        Fault::Gone => Event::ClientGone,
        Fault::Reset(_) | Fault::Refused => Event::ClientReset,
        Fault::Malformed => Event::BadRequestBody,
    }
}

fn of_endpoint(fault: Fault) -> Event {
    match fault {
        Fault::Gone => Event::EndpointGone,
        Fault::Reset(_) => Event::EndpointReset { is_refused: false },
        Fault::Refused => Event::EndpointReset { is_refused: true },
        Fault::Malformed => Event::BadResponse,
    }
}
