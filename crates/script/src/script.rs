//! One script, loaded for one worker, and its runs.

use std::{cell::RefCell, collections::HashMap, fmt, rc::Rc, sync::Arc};

use mlua::{Function, Lua, MultiValue};

use crate::{
    HeaderRefused, Stream,
    budget::{Budget, CALL_INSTRUCTIONS_MAX, LOAD_INSTRUCTIONS_MAX, MEMORY_MAX},
    exchange::Exchange,
    handle::Handle,
    sandbox,
};

/// What a script may use of the process it runs in.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Where `require` looks: paths with a `?` for the module's name (`/etc/lua/?.lua`), in which
    /// its dots are slashes.
    pub package_paths: Vec<String>,
    /// The variables that `os.getenv` knows. Values are not printed.
    pub environment: Arc<HashMap<String, String>>,
}

/// A script, ready to run. It has a Lua state of its own: its globals live from run to run.
///
/// It belongs to one worker: it cannot be sent to another thread.
pub struct Script {
    name: String,
    on_request: Option<Function>,
    on_response: Option<Function>,
    exchange: Rc<RefCell<Exchange>>,
    budget: Budget,
    /// Last, because everything above lives in it.
    lua: Lua,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The stream goes on, with the script's changes.
    Continue,
    /// The client gets this instead, and the stream ends. The script's changes are dropped.
    Respond(Response),
}

/// A response that a script makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 200 to 599.
    pub status: u16,
    /// Names in lower case and values, sorted.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// May be empty.
    pub body: Vec<u8>,
}

/// Why a script was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It is not Lua, or it failed when it was loaded.
    #[error("script {name} does not load: {message}")]
    Load {
        /// The filter's name.
        name: String,
        /// Lua's message, with the line.
        message: String,
    },
    /// It has neither `envoy_on_request` nor `envoy_on_response`.
    #[error("script {name} defines neither envoy_on_request nor envoy_on_response")]
    Empty {
        /// The filter's name.
        name: String,
    },
}

/// Why a run failed. The client must get a 500: the stream is as it was, not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The script raised an error.
    #[error("script {name} failed: {message}")]
    Script {
        /// The filter's name.
        name: String,
        /// Lua's message, with the line.
        message: String,
    },
    /// The stream cannot have what the script made of it; some changes may have been carried out.
    #[error(transparent)]
    Header(#[from] HeaderRefused),
}

impl Script {
    /// Loads a script and runs its top level: functions are defined, modules are required.
    ///
    /// # Errors
    ///
    /// [`CompileError`]; a filter whose script does not load must answer every request with 500.
    pub fn compile(source: &str, name: &str, host: &Host) -> Result<Self, CompileError> {
        let exchange = Rc::new(RefCell::new(Exchange::default()));
        let fault = |error: &mlua::Error| CompileError::Load {
            name: name.to_owned(),
            message: message(error),
        };
        let load = || -> mlua::Result<_> {
            let lua = sandbox::state(host, &exchange)?;
            let budget = Budget::install(&lua)?;
            budget.grant(&lua, LOAD_INSTRUCTIONS_MAX)?;
            let chunk = lua.load(source).set_name(format!("={name}"));
            chunk.set_mode(mlua::chunk::ChunkMode::Text).exec()?;
            if let Some(exhausted) = budget.exhausted() {
                return Err(mlua::Error::external(exhausted));
            }
            let on_request: Option<Function> = lua.globals().get("envoy_on_request")?;
            let on_response: Option<Function> = lua.globals().get("envoy_on_response")?;
            Ok((lua, budget, on_request, on_response))
        };
        let (lua, budget, on_request, on_response) = load().map_err(|error| fault(&error))?;
        if on_request.is_none() && on_response.is_none() {
            return Err(CompileError::Empty { name: name.to_owned() });
        }
        Ok(Self { name: name.to_owned(), on_request, on_response, exchange, budget, lua })
    }

    /// Whether the script wants to see requests.
    #[must_use]
    pub fn handles_requests(&self) -> bool {
        self.on_request.is_some()
    }

    /// Whether the script wants to see responses.
    #[must_use]
    pub fn handles_responses(&self) -> bool {
        self.on_response.is_some()
    }

    /// Runs `envoy_on_request` on a request.
    ///
    /// # Errors
    ///
    /// [`RunError`]: the client must get a 500.
    pub fn on_request(&self, stream: &mut dyn Stream) -> Result<Outcome, RunError> {
        self.run(self.on_request.as_ref(), stream)
    }

    /// Runs `envoy_on_response` on a response.
    ///
    /// # Errors
    ///
    /// [`RunError`]: the client must get a 500 instead of the response.
    pub fn on_response(&self, stream: &mut dyn Stream) -> Result<Outcome, RunError> {
        self.run(self.on_response.as_ref(), stream)
    }

    fn run(
        &self,
        function: Option<&Function>,
        stream: &mut dyn Stream,
    ) -> Result<Outcome, RunError> {
        let Some(function) = function else { return Ok(Outcome::Continue) };
        self.exchange.borrow_mut().begin(stream);
        let ended = self.call(function);
        let mut exchange = self.exchange.borrow_mut();
        exchange.end(stream);
        let ended = match self.budget.exhausted() {
            Some(exhausted) => Err(mlua::Error::external(exhausted)),
            // What raised after respond() was respond() itself, or has no say any more.
            None => match exchange.response.take() {
                Some(response) => return Ok(Outcome::Respond(response)),
                None => ended,
            },
        };
        ended.map_err(|error| RunError::Script {
            name: self.name.clone(),
            message: message(&error),
        })?;
        exchange.apply(stream)?;
        Ok(Outcome::Continue)
    }

    /// Calls the function in a coroutine of its own, as Envoy does.
    fn call(&self, function: &Function) -> mlua::Result<()> {
        self.budget.grant(&self.lua, CALL_INSTRUCTIONS_MAX)?;
        let thread = self.lua.create_thread(function.clone())?;
        thread.resume::<MultiValue>(Handle::new(&self.exchange))?;
        if thread.is_resumable() {
            return Err(mlua::Error::runtime("the script yields, and nothing would resume it"));
        }
        Ok(())
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What went wrong, in one line: without the stack, which names our own functions.
fn message(error: &mlua::Error) -> String {
    let text = match error {
        mlua::Error::CallbackError { cause, .. } => return message(cause),
        mlua::Error::MemoryError(_) => {
            return format!("the script uses more than {} MiB", MEMORY_MAX >> 20);
        }
        mlua::Error::RuntimeError(text) => text.clone(),
        mlua::Error::SyntaxError { message, .. } => message.clone(),
        other => other.to_string(),
    };
    text.split("\nstack traceback:").next().unwrap_or_default().trim().to_owned()
}
