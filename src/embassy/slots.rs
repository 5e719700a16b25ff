//! Places for what comes and goes, by tokens that are never those of another one.

/// Values by token.
#[derive(Debug)]
pub struct Slots<T> {
    places: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Where a value is: once it is gone, no other one has the same token for a billion values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token {
    place: u32,
    generation: u32,
}

/// Bits of a generation in a token's number.
const GENERATION_BITS: u32 = 30;

impl Token {
    /// As a number below 2⁶².
    pub fn number(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.place)
    }

    /// The token with this number.
    pub fn of(number: u64) -> Self {
        Self { place: number as u32, generation: (number >> 32) as u32 & ((1 << GENERATION_BITS) - 1) }
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Keeps a value.
    pub fn insert(&mut self, value: T) -> Token {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Slot { generation: 0, value: None });
            (self.places.len() - 1) as u32
        });
        let slot = &mut self.places[place as usize];
        slot.value = Some(value);
        Token { place, generation: slot.generation }
    }

    /// The value, unless it is gone.
    pub fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let slot = self.places.get_mut(token.place as usize)?;
        if slot.generation == token.generation { slot.value.as_mut() } else { None }
    }

    /// The value, unless it is gone.
    pub fn get(&self, token: Token) -> Option<&T> {
        let slot = self.places.get(token.place as usize)?;
        if slot.generation == token.generation { slot.value.as_ref() } else { None }
    }

    /// Takes the value out.
    pub fn remove(&mut self, token: Token) -> Option<T> {
        self.get(token)?;
        let slot = &mut self.places[token.place as usize];
        slot.generation = (slot.generation + 1) & ((1 << GENERATION_BITS) - 1);
        self.free.push(token.place);
        slot.value.take()
    }

    /// All of them, when the places are given up.
    pub fn into_values(self) -> impl Iterator<Item = T> {
        self.places.into_iter().filter_map(|slot| slot.value)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Token, &T)> {
        self.places.iter().enumerate().filter_map(|(place, slot)| {
            let token = Token { place: place as u32, generation: slot.generation };
            Some((token, slot.value.as_ref()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_used_again_has_another_token() {
        let mut slots = Slots::default();
        let (one, two) = (slots.insert(1), slots.insert(2));
        assert_eq!((slots.remove(one), slots.remove(one), slots.len()), (Some(1), None, 1));
        let three = slots.insert(3);
        assert_eq!((slots.get(one), slots.get(two), slots.get(three)), (None, Some(&2), Some(&3)));
        assert!(slots.get_mut(one).is_none());
        assert!(three.place == one.place && three != one);
        assert_eq!(slots.iter().map(|(token, value)| (token, *value)).collect::<Vec<_>>(), [(three, 3), (two, 2)]);
        for token in [two, three] {
            assert_eq!(Token::of(token.number()), token);
        }
    }
}
