//! A proxy that subscribes, unsubscribes and changes its mind at random, and must always end up with
//! exactly what it wants of what there is.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::tests::{kind, set};
use crate::session::{Action, Ask, Dialect, Event, Names, Session};

/// Names in play: few, so that each is met often.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const WALKS: u64 = 200;
const STEPS: usize = 60;

/// A pseudo-random sequence (Knuth's MMIX constants), the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// A proxy of endpoints, and what there is for it.
struct Proxy {
    session: Session,
    dialect: Dialect,
    wildcard: bool,
    wanted: BTreeSet<&'static str>,
    held: BTreeMap<String, String>,
    /// What there is: content by name.
    there: BTreeMap<&'static str, usize>,
}

impl Proxy {
    fn ask(&mut self, nonce: &str, error: Option<String>, names: Names) {
        let ask = Ask { kind: kind("EDS"), nonce: nonce.to_owned(), error, names };
        let actions = self.session.on(Event::Ask(ask));
        self.take(actions);
    }

    /// Takes what was sent, and accepts it at once.
    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            let Action::Send(response) = action else { continue };
            if self.dialect == Dialect::Sotw {
                self.held.clear();
            }
            for resource in &response.upserts {
                self.held.insert(resource.name.clone(), resource.version.clone());
            }
            for name in &response.removed {
                self.held.remove(name);
            }
            let names = match self.dialect {
                Dialect::Sotw => self.all(),
                Dialect::Delta => change(&[], &[]),
            };
            self.ask(&response.nonce, None, names);
        }
    }

    fn all(&self) -> Names {
        let star = self.wildcard.then_some("*");
        Names::All(self.wanted.iter().copied().chain(star).map(str::to_owned).collect())
    }

    fn publish(&mut self) {
        let text: Vec<String> =
            self.there.iter().map(|(name, content)| format!("EDS/{name}={content}")).collect();
        let actions = self.session.on(Event::Set(set(&text.join(" "))));
        self.take(actions);
    }

    fn step(&mut self, dice: &mut Dice) {
        let name = NAMES[dice.roll(NAMES.len())];
        match dice.roll(6) {
            0 => {
                self.there.insert(name, dice.roll(3));
                self.publish();
            }
            1 => {
                self.there.remove(name);
                self.publish();
            }
            2 | 3 => self.flip(name),
            4 if self.dialect == Dialect::Delta => self.flip("*"),
            _ => self.publish(),
        }
    }

    /// Subscribes or unsubscribes. A proxy that unsubscribes drops what it had.
    fn flip(&mut self, name: &'static str) {
        let was_wanted = match name {
            "*" => {
                self.wildcard = !self.wildcard;
                !self.wildcard
            }
            name => !self.wanted.insert(name) && self.wanted.remove(name),
        };
        let (wildcard, wanted) = (self.wildcard, &self.wanted);
        self.held.retain(|held, _| wildcard || wanted.contains(held.as_str()));
        if was_wanted && name != "*" {
            self.held.remove(name);
        }
        let names = match (self.dialect, was_wanted) {
            (Dialect::Sotw, _) => self.all(),
            (Dialect::Delta, true) => change(&[], &[name]),
            (Dialect::Delta, false) => change(&[name], &[]),
        };
        let nonce = "";
        self.ask(nonce, None, names);
    }

    #[track_caller]
    fn check(&self, walk: u64) {
        let current = set(&self
            .there
            .iter()
            .map(|(name, content)| format!("EDS/{name}={content}"))
            .collect::<Vec<_>>()
            .join(" "));
        let expected: BTreeMap<String, String> = current
            .of(kind("EDS"))
            .filter(|resource| self.wildcard || self.wanted.contains(resource.name.as_str()))
            .map(|resource| (resource.name.clone(), resource.version.clone()))
            .collect();
        // State of the world cannot say that nothing is left of what was asked for by name.
        if self.dialect == Dialect::Sotw && expected.is_empty() {
            return;
        }
        assert_eq!(self.held, expected, "walk {walk}, {:?}", self.dialect);
    }
}

fn change(subscribe: &[&str], unsubscribe: &[&str]) -> Names {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Names::Change {
        subscribe: owned(subscribe),
        unsubscribe: owned(unsubscribe),
        held: HashMap::new(),
    }
}

#[test]
fn a_proxy_ends_up_with_exactly_what_it_wants_of_what_there_is() {
    for dialect in [Dialect::Delta, Dialect::Sotw] {
        for walk in 0..WALKS {
            let mut dice = Dice(walk);
            let mut proxy = Proxy {
                session: Session::new(dialect, set("")),
                dialect,
                wildcard: false,
                wanted: BTreeSet::from(["a"]),
                held: BTreeMap::new(),
                there: BTreeMap::new(),
            };
            let first = match dialect {
                Dialect::Sotw => proxy.all(),
                Dialect::Delta => change(&["a"], &[]),
            };
            proxy.ask("", None, first);
            for _ in 0..STEPS {
                proxy.step(&mut dice);
                proxy.check(walk);
            }
        }
    }
}
