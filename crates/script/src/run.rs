//! One run of a script: a coroutine that is resumed with what it waits for.

use std::{cell::RefCell, fmt, rc::Rc};

use mlua::{Function, IntoLuaMulti, MultiValue, Thread, Value};

use crate::{
    Answer, Call, Stream,
    body::Body,
    budget::CALL_INSTRUCTIONS_MAX,
    exchange::{Exchange, Part, Wait},
    handle::Handle,
    headers::Headers,
    list::HeaderList,
    terms::{Begin, Effects, Pairs, Response, RunError},
    worker::Worker,
};

/// How far a run has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The script has ended; its changes of the head have been made.
    Done,
    /// The client gets this instead, and the stream ends. The script's changes are dropped.
    Respond(Response),
    /// The script waits.
    Wants(Want),
}

/// What a script waits for.
#[derive(Debug, PartialEq, Eq)]
pub enum Want {
    /// The whole body, and the trailers: [`Run::body`]. The head waits.
    Body,
    /// The next piece of the body: [`Run::chunk`], or [`Run::end`]. The head goes on.
    Chunk,
    /// The end of the body, which goes on as it is: [`Run::end`]. The head goes on.
    Trailers,
    /// An answer: [`Run::answer`]. The head, or the piece of the body, waits.
    Call(Call),
}

/// One run of a script. Dropping it ends the run.
pub struct Run {
    worker: Rc<Worker>,
    thread: Thread,
    exchange: Rc<RefCell<Exchange>>,
    waits: Waits,
}

/// What the run was told to wait for last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// Nothing: it has ended.
    No,
    Body,
    Chunk,
    Trailers,
    /// An answer; whether repeated headers come back as a table.
    Call(bool),
}

impl Run {
    /// Starts a run in a coroutine of its own, as Envoy does.
    pub(crate) fn start(
        worker: &Rc<Worker>,
        function: &Function,
        begin: Begin,
        stream: &mut dyn Stream,
    ) -> Result<(Self, Step), RunError> {
        let exchange = worker.spare.borrow_mut().pop().unwrap_or_default();
        let fault = |error| worker.fault(&error);
        let thread = worker.lua.create_thread(function.clone()).map_err(fault)?;
        {
            let mut exchange = exchange.borrow_mut();
            exchange.begin(begin, stream);
            exchange.thread = Some(thread.to_pointer());
        }
        let handle = Handle::new(&exchange);
        let worker = Rc::clone(worker);
        let mut run = Self { worker, thread, exchange, waits: Waits::No };
        let step = run.go_on(handle, stream)?;
        Ok((run, step))
    }

    /// Whether the script waits for pieces of the body.
    #[must_use]
    pub fn wants_chunks(&self) -> bool {
        self.waits == Waits::Chunk
    }

    /// Whether the script waits for the trailers.
    #[must_use]
    pub fn wants_trailers(&self) -> bool {
        self.waits == Waits::Trailers
    }

    /// Whether the script has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.waits == Waits::No
    }

    /// Whether there is a body, or a piece of one, that the script may have changed.
    #[must_use]
    pub fn has_buffer(&self) -> bool {
        self.exchange.borrow().buffer.is_some()
    }

    /// Gives the whole body that the script waits for, and the trailers behind it.
    ///
    /// # Errors
    ///
    /// [`RunError`]: the client must get a 500.
    pub fn body(
        &mut self,
        bytes: Vec<u8>,
        trailers: Option<Pairs>,
        stream: &mut dyn Stream,
    ) -> Result<Step, RunError> {
        if self.waits != Waits::Body {
            return Ok(Step::Done);
        }
        // As in Envoy: trailers alone are no body.
        let is_absent = bytes.is_empty() && trailers.is_some();
        let serial = {
            let mut exchange = self.exchange.borrow_mut();
            exchange.body.has_ended = true;
            exchange.body.has_begun = true;
            exchange.trailers = trailers.map(|pairs| list(&pairs));
            (!is_absent).then(|| exchange.give_buffer(bytes))
        };
        match serial {
            Some(serial) => self.go_on(Body(Handle::new(&self.exchange), serial), stream),
            None => self.go_on(Value::Nil, stream),
        }
    }

    /// Gives the next piece that the script waits for; `ends` when it is the last of the message.
    ///
    /// # Errors
    ///
    /// [`RunError`]: the message must not go on.
    pub fn chunk(
        &mut self,
        bytes: Vec<u8>,
        ends: bool,
        stream: &mut dyn Stream,
    ) -> Result<Step, RunError> {
        let serial = {
            let mut exchange = self.exchange.borrow_mut();
            exchange.body.has_begun = true;
            exchange.body.has_ended = ends;
            exchange.give_buffer(bytes)
        };
        if self.waits != Waits::Chunk {
            return Ok(Step::Done);
        }
        self.go_on(Body(Handle::new(&self.exchange), serial), stream)
    }

    /// Tells that a piece has gone on without the script.
    pub fn passed(&mut self, ends: bool) {
        let mut exchange = self.exchange.borrow_mut();
        exchange.body.has_begun = true;
        exchange.body.has_ended |= ends;
    }

    /// Tells a script that waits for pieces or trailers that the message has ended.
    ///
    /// # Errors
    ///
    /// [`RunError`]: the message must not go on.
    pub fn end(
        &mut self,
        trailers: Option<Pairs>,
        stream: &mut dyn Stream,
    ) -> Result<Step, RunError> {
        let has_trailers = trailers.is_some();
        {
            let mut exchange = self.exchange.borrow_mut();
            exchange.body.has_ended = true;
            exchange.buffer = None;
            exchange.trailers = trailers.map(|pairs| list(&pairs));
        }
        match self.waits {
            Waits::Trailers if has_trailers => {
                self.go_on(Headers(Handle::new(&self.exchange), Part::Trailers), stream)
            }
            Waits::Trailers | Waits::Chunk => self.go_on(Value::Nil, stream),
            Waits::No | Waits::Body | Waits::Call(_) => Ok(Step::Done),
        }
    }

    /// Gives the answer to the call that the script waits for.
    ///
    /// # Errors
    ///
    /// [`RunError`]: the client must get a 500, or the message must not go on.
    pub fn answer(&mut self, answer: &Answer, stream: &mut dyn Stream) -> Result<Step, RunError> {
        let Waits::Call(keeps_repeated) = self.waits else { return Ok(Step::Done) };
        let values = answer.to_lua(&self.worker.lua, keeps_repeated);
        let values = values.map_err(|error| self.worker.fault(&error))?;
        self.go_on(values, stream)
    }

    /// The bytes of the buffer, if the script has set them. For a whole body.
    pub fn take_changed(&mut self) -> Option<Vec<u8>> {
        let mut exchange = self.exchange.borrow_mut();
        let is_changed = exchange.buffer.as_ref().is_some_and(|buffer| buffer.is_changed);
        exchange.buffer.take().filter(|_| is_changed).map(|buffer| buffer.bytes)
    }

    /// The bytes of the piece that was given last, as the script has left them.
    pub fn take_chunk(&mut self) -> Vec<u8> {
        let buffer = self.exchange.borrow_mut().buffer.take();
        buffer.map(|buffer| buffer.bytes).unwrap_or_default()
    }

    /// The trailers as the script has left them; `None` when there are none.
    pub fn take_trailers(&mut self) -> Option<Pairs> {
        let trailers = self.exchange.borrow_mut().trailers.take()?;
        Some(trailers.all().map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
    }

    /// What the script has wanted since this was last asked.
    pub fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.exchange.borrow_mut().effects)
    }

    /// The calls whose answers the script does not wait for, made since this was last asked.
    pub fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.exchange.borrow_mut().calls)
    }

    /// Resumes the coroutine.
    fn go_on(
        &mut self,
        values: impl IntoLuaMulti,
        stream: &mut dyn Stream,
    ) -> Result<Step, RunError> {
        self.waits = Waits::No;
        let worker = Rc::clone(&self.worker);
        let fault = |error: mlua::Error| worker.fault(&error);
        worker.budget.grant(&worker.lua, CALL_INSTRUCTIONS_MAX).map_err(fault)?;
        self.exchange.borrow_mut().enter(stream);
        *worker.current.borrow_mut() = Some(Rc::clone(&self.exchange));
        let ended = self.thread.resume::<MultiValue>(values);
        *worker.current.borrow_mut() = None;
        let mut exchange = self.exchange.borrow_mut();
        exchange.leave(stream);
        if let Some(exhausted) = worker.budget.exhausted() {
            return Err(fault(mlua::Error::external(exhausted)));
        }
        // What raised after respond() has no say any more.
        if let Some(response) = exchange.response.take() {
            return Ok(Step::Respond(response));
        }
        ended.map_err(fault)?;
        let wait = exchange.wait.take();
        let step = match wait {
            None if self.thread.is_resumable() => {
                let message = "the script yields, and nothing would resume it";
                return Err(fault(mlua::Error::runtime(message)));
            }
            None => Step::Done,
            Some(Wait::Body) => Step::Wants(Want::Body),
            Some(Wait::Chunk) => Step::Wants(Want::Chunk),
            Some(Wait::Trailers) => Step::Wants(Want::Trailers),
            Some(Wait::Call(call)) => Step::Wants(Want::Call(*call)),
        };
        self.waits = match &step {
            Step::Wants(Want::Body) => Waits::Body,
            Step::Wants(Want::Chunk) => Waits::Chunk,
            Step::Wants(Want::Trailers) => Waits::Trailers,
            Step::Wants(Want::Call(call)) => Waits::Call(call.keeps_repeated),
            Step::Done | Step::Respond(_) => Waits::No,
        };
        let head_waits = matches!(step, Step::Wants(Want::Body | Want::Call(_)));
        if !head_waits && !exchange.is_head_sent {
            exchange.apply(stream)?;
        }
        Ok(step)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Objects that the script has kept still point to it, and refuse: the run's number changes.
        let Ok(mut exchange) = self.exchange.try_borrow_mut() else { return };
        exchange.clear();
        drop(exchange);
        let mut spare = self.worker.spare.borrow_mut();
        if spare.len() < SPARE_MAX {
            spare.push(Rc::clone(&self.exchange));
        }
    }
}

/// Runs whose memory is kept for later ones.
const SPARE_MAX: usize = 16;

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("script", &self.worker.name)
            .field("waits", &self.waits)
            .finish()
    }
}

fn list(pairs: &Pairs) -> HeaderList {
    let mut list = HeaderList::default();
    for (name, value) in pairs {
        list.add(name, value);
    }
    list
}
