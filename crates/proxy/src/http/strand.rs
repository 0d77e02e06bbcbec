//! Scripts that watch a body while it passes, and what scripts want of an exchange.
//!
//! In:    the pieces of a body, in order.
//! Out:   the pieces as the scripts leave them.
//! Never: lets a piece overtake another; lets a body differ from the length that its head told.

pub(super) mod shown;

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use sluis_rules::Metadata;
use sluis_script::{Answer, BodyIs, Call, Effects, Pairs, Run, RunError, Step, Want};
use tracing::{debug, warn};

use self::shown::{Claims, Head, Shown};
use super::{
    piece::{Fault, Piece, clean},
    protocol::Protocol,
    reply::Reply,
    shared::Shared,
    under_way::Count,
};
use crate::conn::ConnectionFacts;

/// Most bytes of a body that are held for a script: Envoy's default.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;

/// Why the client is told so.
pub(super) const FAILED: &str = "lua_script_failed";

/// Calls of one filter on one worker that nobody waits for, at a time.
const CALLS_MAX: u32 = 1000;

/// Where an exchange takes place, as far as its scripts need it.
pub(super) trait Ground: fmt::Debug {
    /// The client's connection.
    fn connection(&self) -> &ConnectionFacts;

    /// What the client speaks.
    fn protocol(&self) -> Protocol;

    /// The configuration now.
    fn config(&self) -> Rc<Shared>;

    /// Calls another service, under the configuration with which the script has begun.
    fn call(self: Rc<Self>, config: Rc<Shared>, call: Call) -> Asking;

    /// Counts a script that has failed.
    fn failed(&self);
}

/// A call under way.
pub(super) struct Asking(Pin<Box<dyn Future<Output = Answer>>>);

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asking")
    }
}

impl Asking {
    pub(super) fn new(call: impl Future<Output = Answer> + 'static) -> Self {
        Self(Box::pin(call))
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        self.0.as_mut().poll(cx)
    }
}

/// What scripts want of one exchange, and what they wait for.
#[derive(Debug, Default)]
pub(super) struct Scripts {
    /// Where the exchange takes place, for calls to other services. Set where there are scripts.
    pub(super) place: Option<Rc<dyn Ground>>,
    pub(super) request: Strand,
    pub(super) response: Strand,
    /// The script that waits before the head of a response goes on.
    pub(super) waiting: Option<Box<Waiting>>,
    /// What follows the head of the response.
    pub(super) response_body: BodyIs,
    /// The whole body of the response.
    pub(super) gathered: Option<Gathered>,
    /// Whether the client's connection ends with this exchange.
    pub(super) drains: bool,
    /// The endpoint that the request is to go to, and whether to no other.
    pub(super) override_host: Option<(String, bool)>,
    /// Whether a script has taken away the length of the request's body.
    pub(super) is_unframed: bool,
}

/// A whole body.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) bytes: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) is_changed: bool,
}

/// A script that waits before the head of a response goes on.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Which of the filters it is.
    pub(super) index: usize,
    pub(super) running: Running,
    /// The call that it waits for; `None`: it waits for the body.
    pub(super) asking: Option<Asking>,
    pub(super) answer: Option<Answer>,
}

impl Waiting {
    /// Which of the filters it is.
    pub(super) fn index(&self) -> usize {
        self.index
    }
}

impl Scripts {
    /// Whether the request's body has to be taken apart.
    pub(super) fn take_request_apart(&self) -> bool {
        self.is_unframed || !self.request.is_idle()
    }

    /// Whether a script waits for the whole body of the response.
    pub(super) fn wants_body(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.asking.is_none())
    }

    /// Ready when the answer has come that a script waits for.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(()) };
        let Some(asking) = &mut waiting.asking else { return Poll::Ready(()) };
        waiting.answer = Some(ready!(asking.poll(cx)));
        Poll::Ready(())
    }

    /// Forgets what scripts wanted of a response that is not sent.
    pub(super) fn forget_response(&mut self) {
        self.waiting = None;
        self.gathered = None;
        self.response = Strand::default();
    }

    /// The script that has waited.
    pub(super) fn take_waiting(&mut self) -> Option<Waiting> {
        self.waiting.take().map(|waiting| *waiting)
    }
}

/// Whose run it is.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) name: Arc<str>,
    pub(super) place: Rc<dyn Ground>,
    pub(super) config: Rc<Shared>,
}

/// A script under way.
#[derive(Debug)]
pub(super) struct Running {
    name: Arc<str>,
    place: Rc<dyn Ground>,
    config: Rc<Shared>,
    pub(super) run: Run,
    pub(super) claims: Claims,
    asking: Option<Asking>,
    calls: Count,
}

impl Running {
    pub(super) fn new(own: Own, run: Run, calls: Count) -> Self {
        let Own { name, place, config } = own;
        Self { name, place, config, run, claims: Claims::default(), asking: None, calls }
    }

    /// Makes the calls that the script does not wait for, and tells what else it wants.
    pub(super) fn settle(&mut self) -> Effects {
        for call in self.run.take_calls() {
            self.send(call);
        }
        self.run.take_effects()
    }

    /// Makes a call.
    pub(super) fn begin(&self, call: Call) -> Asking {
        Rc::clone(&self.place).call(Rc::clone(&self.config), call)
    }

    /// Makes a call whose answer nobody waits for.
    fn send(&self, call: Call) {
        let Some(under_way) = self.calls.within(CALLS_MAX) else {
            debug!(cluster = call.cluster, "a script's call is not made: too many are under way");
            return;
        };
        let mut asking = self.begin(call);
        tokio::task::spawn_local(async move {
            let _under_way = under_way;
            poll_fn(|cx| asking.poll(cx)).await;
        });
    }

    pub(super) async fn ask(&self, call: Call) -> Answer {
        let mut asking = self.begin(call);
        poll_fn(|cx| asking.poll(cx)).await
    }

    fn failed(&self, error: &RunError) -> Cut {
        self.place.failed();
        warn!(filter = %self.name, %error, "script failed: the message does not go on");
        Cut
    }

    /// After a step: a call begins, if the script waits for one.
    fn stepped(&mut self, step: Result<Step, RunError>) -> Result<(), Cut> {
        let step = step.map_err(|error| self.failed(&error))?;
        if let Step::Wants(Want::Call(call)) = step {
            self.asking = Some(self.begin(call));
        }
        Ok(())
    }

    /// Ready when the script does not wait for an answer.
    fn poll_asking(
        &mut self,
        cx: &mut Context<'_>,
        metadata: &mut Metadata,
    ) -> Poll<Result<(), Cut>> {
        while let Some(asking) = &mut self.asking {
            let answer = ready!(asking.poll(cx));
            self.asking = None;
            let name = Arc::clone(&self.name);
            let mut shown = Shown::new(Head::Gone, metadata, &name);
            let step = self.run.answer(&answer, &mut shown);
            self.stepped(step)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Shows a piece to the script. True when the script may change it.
    fn show(&mut self, piece: &Piece, metadata: &mut Metadata) -> Result<bool, Cut> {
        let name = Arc::clone(&self.name);
        let mut shown = Shown::new(Head::Gone, metadata, &name);
        let step = match piece {
            Piece::Data(data, ends) if self.run.wants_chunks() => {
                self.run.chunk(data.to_vec(), *ends, &mut shown)
            }
            Piece::End(None) if self.run.wants_chunks() => {
                self.run.chunk(Vec::new(), true, &mut shown)
            }
            Piece::Data(_, ends) => {
                self.run.passed(*ends);
                match *ends && self.run.wants_trailers() {
                    true => self.run.end(None, &mut shown),
                    false => return Ok(false),
                }
            }
            Piece::End(trailers) => self.run.end(trailers.as_ref().map(pairs), &mut shown),
        };
        let is_shown = !matches!(piece, Piece::Data(..)) || self.run.has_buffer();
        self.stepped(step)?;
        Ok(is_shown)
    }

    /// The piece as the script has left it; `None` when nothing is left of it.
    fn taken(&mut self, piece: Piece) -> Option<Piece> {
        match piece {
            Piece::Data(_, ends) => whole(self.run.take_chunk().into(), ends),
            Piece::End(None) => whole(self.run.take_chunk().into(), true),
            Piece::End(Some(_)) => {
                let trailers = self.run.take_trailers().map(|pairs| map(&pairs));
                Some(Piece::End(trailers.filter(|trailers| !trailers.is_empty())))
            }
        }
    }
}

/// A piece of these bytes, which may be none.
fn whole(data: Bytes, ends: bool) -> Option<Piece> {
    match (data.is_empty(), ends) {
        (false, _) => Some(Piece::Data(data, ends)),
        (true, true) => Some(Piece::End(None)),
        (true, false) => None,
    }
}

/// A script has failed: the message must not go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut;

/// The answer to a message whose script has failed while its body passed.
pub(super) fn cut<'c>() -> Reply<'c> {
    Reply::new(500, FAILED).plain().closing()
}

/// The scripts that watch one body, in order.
#[derive(Debug, Default)]
pub(super) struct Strand {
    runs: Vec<Running>,
    /// The piece under way, the script that has it, and whether that script may change it.
    piece: Option<(Piece, usize, bool)>,
    /// Bytes that the head has told of and that have not gone on; `None` when it told of none.
    left: Option<u64>,
}

impl Strand {
    /// Whether nobody watches.
    pub(super) fn is_idle(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn push(&mut self, running: Running, length: Option<u64>) {
        if self.runs.is_empty() {
            self.left = length;
        }
        self.runs.push(running);
    }

    /// The head tells of so many bytes.
    pub(super) fn expect(&mut self, len: u64) {
        self.left = Some(len);
    }

    /// The next piece as the scripts leave it.
    pub(super) fn poll_through(
        &mut self,
        cx: &mut Context<'_>,
        metadata: &mut Metadata,
        mut next: impl FnMut(&mut Context<'_>) -> Poll<Result<Piece, Fault>>,
    ) -> Poll<Result<Piece, Broken>> {
        loop {
            if self.piece.is_none() {
                let piece = ready!(next(cx)).map_err(Broken::Fault)?;
                self.piece = Some((piece, 0, false));
                self.show(metadata).map_err(|Cut| Broken::Script)?;
            }
            match ready!(self.poll_piece(cx, metadata)) {
                Ok(Some(piece)) => return Poll::Ready(Ok(piece)),
                Ok(None) => {}
                Err(Cut) => return Poll::Ready(Err(Broken::Script)),
            }
        }
    }

    /// Lets a whole body pass.
    pub(super) async fn pass(
        &mut self,
        (bytes, trailers): (Vec<u8>, Option<HeaderMap>),
        metadata: &mut Metadata,
    ) -> Result<(Vec<u8>, Option<HeaderMap>), Cut> {
        // The whole is framed by whoever sends it.
        self.left = None;
        let mut out = Vec::new();
        let end = match (bytes.is_empty(), trailers) {
            (true, trailers) => vec![Piece::End(trailers)],
            (false, None) => vec![Piece::Data(bytes.into(), true)],
            (false, some) => vec![Piece::Data(bytes.into(), false), Piece::End(some)],
        };
        let mut pieces = end.into_iter();
        loop {
            let piece = poll_fn(|cx| {
                self.poll_through(cx, metadata, |_| {
                    Poll::Ready(pieces.next().ok_or(Fault::Malformed))
                })
            });
            match piece.await.map_err(|_| Cut)? {
                Piece::Data(data, ends) => {
                    out.extend_from_slice(&data);
                    if ends {
                        return Ok((out, None));
                    }
                }
                Piece::End(trailers) => return Ok((out, trailers)),
            }
        }
    }

    /// Shows the piece to the script whose turn it is.
    fn show(&mut self, metadata: &mut Metadata) -> Result<(), Cut> {
        if let Some((piece, at, is_shown)) = &mut self.piece
            && let Some(running) = self.runs.get_mut(*at)
        {
            *is_shown = running.show(piece, metadata)?;
        }
        Ok(())
    }

    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        metadata: &mut Metadata,
    ) -> Poll<Result<Option<Piece>, Cut>> {
        while let Some((_, at, is_shown)) = self.piece {
            let Some(running) = self.runs.get_mut(at) else { break };
            ready!(running.poll_asking(cx, metadata))?;
            let _effects = running.settle();
            let Some((mut piece, ..)) = self.piece.take() else { break };
            if is_shown {
                match running.taken(piece) {
                    Some(left) => piece = left,
                    None => return Poll::Ready(Ok(None)),
                }
            }
            self.piece = Some((piece, at + 1, false));
            self.show(metadata)?;
        }
        let Some((piece, ..)) = self.piece.take() else { return Poll::Ready(Ok(None)) };
        let (len, ends) = match &piece {
            Piece::Data(data, ends) => (data.len() as u64, *ends),
            Piece::End(_) => (0, true),
        };
        if let Some(left) = &mut self.left {
            let fits = left.checked_sub(len).filter(|left| !ends || *left == 0);
            let Some(rest) = fits else {
                if let Some(running) = self.runs.first() {
                    running.misframed();
                }
                return Poll::Ready(Err(Cut));
            };
            *left = rest;
        }
        if ends {
            self.runs.clear();
        }
        Poll::Ready(Ok(Some(piece)))
    }
}

impl Running {
    fn misframed(&self) {
        self.place.failed();
        let error = "the body has not the length that its head tells";
        warn!(filter = %self.name, error, "script failed: the message does not go on");
    }
}

/// Why no piece came.
#[derive(Clone, Copy, Debug)]
pub(super) enum Broken {
    /// The source of the body.
    Fault(Fault),
    /// A script.
    Script,
}

/// Trailers as scripts see them.
pub(super) fn pairs(trailers: &HeaderMap) -> Pairs {
    let all = trailers.iter();
    all.map(|(name, value)| (name.as_str().into(), value.as_bytes().to_vec())).collect()
}

/// Trailers as they are sent; what cannot be sent has been refused where the script set it.
pub(super) fn map(pairs: &Pairs) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for (name, value) in pairs {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            trailers.append(name, value);
        }
    }
    clean(&mut trailers);
    trailers
}
