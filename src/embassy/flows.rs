//! Who has sent datagrams of late, and whom that leads to.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::slots::{Slots, Token};

/// A client of a port, by the port's number.
pub type Client = (u16, SocketAddr);

/// Flows by client, in the order in which they were last used.
#[derive(Debug)]
pub struct Flows<T> {
    most: usize,
    by_client: HashMap<Client, Token>,
    slots: Slots<Flow<T>>,
    newest: Option<Token>,
    oldest: Option<Token>,
}

#[derive(Debug)]
struct Flow<T> {
    client: Client,
    used: u64,
    newer: Option<Token>,
    older: Option<Token>,
    value: T,
}

impl<T> Flows<T> {
    /// With room for so many, at least one.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), by_client: HashMap::new(), slots: Slots::default(), newest: None, oldest: None }
    }

    /// Begins a flow. The one that has not been used for longest makes room for it.
    pub fn insert(&mut self, client: Client, value: T, now: u64) -> (Token, Option<T>) {
        let former = self.by_client.get(&client).copied().or(self.oldest.filter(|_| self.slots.len() >= self.most));
        let former = former.and_then(|token| self.remove(token));
        let token = self.slots.insert(Flow { client, used: now, newer: None, older: None, value });
        self.by_client.insert(client, token);
        self.push(token);
        (token, former)
    }

    /// The flow of a client, which is used by that.
    pub fn of(&mut self, client: &Client, now: u64) -> Option<(Token, &mut T)> {
        let token = *self.by_client.get(client)?;
        self.of_token(token, now).map(|(_, value)| (token, value))
    }

    /// The flow with this token and its client; it is used by that.
    pub fn of_token(&mut self, token: Token, now: u64) -> Option<(Client, &mut T)> {
        self.slots.get(token)?;
        if self.newest != Some(token) {
            self.unlink(token);
            self.push(token);
        }
        let flow = self.slots.get_mut(token)?;
        flow.used = now;
        Some((flow.client, &mut flow.value))
    }

    /// Ends a flow.
    pub fn remove(&mut self, token: Token) -> Option<T> {
        self.slots.get(token)?;
        self.unlink(token);
        let flow = self.slots.remove(token)?;
        self.by_client.remove(&flow.client);
        Some(flow.value)
    }

    /// Ends one that was last used before this moment; `None` when there is none left.
    pub fn expire(&mut self, before: u64) -> Option<T> {
        let oldest = self.oldest?;
        let is_old = self.slots.get(oldest).is_some_and(|flow| flow.used < before);
        if is_old { self.remove(oldest) } else { None }
    }

    /// When the one that was not used for longest was used.
    pub fn oldest(&self) -> Option<u64> {
        Some(self.slots.get(self.oldest?)?.used)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Token, &Client, &T)> {
        self.slots.iter().map(|(token, flow)| (token, &flow.client, &flow.value))
    }

    /// As the newest.
    fn push(&mut self, token: Token) {
        let former = self.newest.replace(token);
        if let Some(flow) = self.slots.get_mut(token) {
            (flow.newer, flow.older) = (None, former);
        }
        match former.and_then(|former| self.slots.get_mut(former)) {
            Some(former) => former.newer = Some(token),
            None => self.oldest = Some(token),
        }
    }

    fn unlink(&mut self, token: Token) {
        let Some((newer, older)) = self.slots.get(token).map(|flow| (flow.newer, flow.older)) else { return };
        match newer.and_then(|newer| self.slots.get_mut(newer)) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        match older.and_then(|older| self.slots.get_mut(older)) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn client(number: u8) -> Client {
        (1, SocketAddr::from(([192, 0, 2, number], 1)))
    }

    #[derive(Debug, Clone)]
    enum Deed {
        Use(u8),
        End(u8),
        Expire(u64),
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            4 => (0_u8..8).prop_map(Deed::Use),
            1 => (0_u8..8).prop_map(Deed::End),
            1 => (1_u64..6).prop_map(Deed::Expire),
        ]
    }

    proptest! {
        /// Beside a list that is searched from end to end.
        #[test]
        fn those_that_were_not_used_for_longest_go_first(deeds in vec(deed(), 0..60), most in 1_usize..6) {
            let mut flows = Flows::new(most);
            let mut model: Vec<(u8, u64)> = Vec::new();
            for (now, deed) in deeds.into_iter().enumerate() {
                let now = now as u64;
                match deed {
                    Deed::Use(number) => {
                        let known = model.iter().position(|(one, _)| *one == number);
                        let found = flows.of(&client(number), now).map(|(_, value)| *value);
                        prop_assert_eq!(found, known.map(|_| number));
                        if let Some(place) = known {
                            model.remove(place);
                        } else {
                            let expected = if model.len() == most { Some(model.remove(0).0) } else { None };
                            prop_assert_eq!(flows.insert(client(number), number, now).1, expected);
                        }
                        model.push((number, now));
                    }
                    Deed::End(number) => {
                        let token = flows.by_client.get(&client(number)).copied();
                        let ended = token.and_then(|token| flows.remove(token));
                        let place = model.iter().position(|(one, _)| *one == number);
                        prop_assert_eq!(ended, place.map(|place| model.remove(place).0));
                    }
                    Deed::Expire(age) => {
                        let before = now.saturating_sub(age);
                        while let Some(gone) = flows.expire(before) {
                            prop_assert_eq!(gone, model.remove(0).0);
                        }
                        prop_assert!(model.first().is_none_or(|(_, used)| *used >= before));
                    }
                }
                prop_assert_eq!(flows.oldest(), model.first().map(|(_, used)| *used));
                prop_assert_eq!(flows.iter().count(), model.len());
            }
        }
    }
}
