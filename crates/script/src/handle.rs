//! What every object of a script's reaches the stream by, as long as its run lives.

use std::{
    cell::{Ref, RefCell, RefMut},
    rc::Rc,
};

use mlua::Error;

use crate::exchange::{Exchange, OUT_OF_SCOPE};

/// What a script reaches the stream by. It is of one run, and refuses to serve in another.
#[derive(Clone)]
pub(crate) struct Handle {
    exchange: Rc<RefCell<Exchange>>,
    run: u64,
}

impl Handle {
    pub(crate) fn new(exchange: &Rc<RefCell<Exchange>>) -> Self {
        Self { exchange: Rc::clone(exchange), run: exchange.borrow().run }
    }

    pub(crate) fn get(&self) -> mlua::Result<Ref<'_, Exchange>> {
        let exchange = self.exchange.borrow();
        self.check(&exchange)?;
        Ok(exchange)
    }

    pub(crate) fn get_mut(&self) -> mlua::Result<RefMut<'_, Exchange>> {
        let exchange = self.exchange.borrow_mut();
        self.check(&exchange)?;
        Ok(exchange)
    }

    fn check(&self, exchange: &Exchange) -> mlua::Result<()> {
        if !exchange.is_live || exchange.run != self.run {
            return Err(Error::runtime(OUT_OF_SCOPE));
        }
        if exchange.response.is_some() {
            return Err(Error::runtime("respond() has ended the script"));
        }
        if exchange.wait.is_some() {
            return Err(Error::runtime("the script goes on while a call of its own waits"));
        }
        Ok(())
    }
}
