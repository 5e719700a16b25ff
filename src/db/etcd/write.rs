//! Writing: each change is a transaction that looks at everything it depends on, so that a request that is sent twice,
//! or arrives late, changes nothing the second time.

use etcd_client::{
    Compare, CompareOp, DeleteOptions, GetOptions, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};

use super::members::{Answer, NoAnswer, Why};
use super::{Fence, Home};
use crate::db::{DbError, Guard, Key, Lease, Version};

/// What a put found in its way.
struct Found {
    /// The key as it is.
    key: Option<KeyValue>,
    /// Something below it.
    below: bool,
    /// A value at the beginning of it.
    above: Option<String>,
    fenced: bool,
}

/// The revision a guard asks for; 0 is that of a key that is not there.
enum Wanted {
    /// The one that is there.
    Any,
    This(i64),
    /// None that etcd ever had.
    Never,
}

impl Wanted {
    fn of(guard: &Guard) -> Self {
        match guard {
            Guard::Any => Self::Any,
            Guard::Absent => Self::This(0),
            Guard::Unchanged(version) => match version.0.parse() {
                Ok(revision @ 1..) => Self::This(revision),
                Ok(_) | Err(_) => Self::Never,
            },
        }
    }
}

impl Home {
    /// The revision of a key's last change; 0 when it is not there.
    async fn revision(&self, key: &Key) -> Result<i64, DbError> {
        let page = self.get(&self.space.name(key), GetOptions::new().with_keys_only()).await;
        let page = page.map_err(|no| self.members.read_error(no))?;
        Ok(page.found.first().map_or(0, KeyValue::mod_revision))
    }

    pub async fn put(&self, key: &Key, value: &[u8], guard: &Guard, lease: Option<&Lease>) -> Result<Version, DbError> {
        let id = match lease {
            Some(lease) => super::lease_id(lease)?,
            None => 0,
        };
        let wanted = Wanted::of(guard);
        let mut expected = match wanted {
            Wanted::Any => self.revision(key).await?,
            Wanted::This(revision) => revision,
            Wanted::Never => return Err(DbError::Changed { key: key.clone() }),
        };
        loop {
            let fence = self.fence_for(key.as_str());
            let txn = self.put_txn(key, value, expected, id, fence.as_ref());
            let answer = self.change(key.as_str(), txn, lease).await?;
            if answer.value.succeeded() {
                return Ok(Version(answer.value.header().map_or(0, |header| header.revision()).to_string()));
            }
            let found = self.found(key, &answer.value, fence.as_ref());
            if found.fenced {
                return Err(self.fenced(key.as_str(), fence));
            }
            if let Some(taken) = found.above.or_else(|| found.below.then(|| key.to_string())) {
                return Err(DbError::Nested { key: key.clone(), taken });
            }
            let now = found.key.as_ref().map_or(0, KeyValue::mod_revision);
            // The answer got lost, but the key holds exactly what was to be written.
            if answer.repeated && found.key.is_some_and(|found| found.value() == value && found.lease() == id) {
                return Ok(Version(now.to_string()));
            }
            match wanted {
                Wanted::Any => expected = now,
                Wanted::This(_) | Wanted::Never => return Err(self.changed(key, answer.repeated)),
            }
        }
    }

    pub async fn delete(&self, key: &Key, guard: &Guard) -> Result<(), DbError> {
        let wanted = Wanted::of(guard);
        let mut expected = match wanted {
            Wanted::Any => self.revision(key).await?,
            Wanted::This(0) if self.revision(key).await? == 0 => return Ok(()),
            Wanted::This(0) | Wanted::Never => return Err(DbError::Changed { key: key.clone() }),
            Wanted::This(revision) => revision,
        };
        loop {
            if expected == 0 {
                return Ok(());
            }
            let name = self.space.name(key);
            let fence = self.fence_for(key.as_str());
            let mut compares = vec![Compare::mod_revision(name.clone(), CompareOp::Equal, expected)];
            compares.extend(fence.as_ref().map(Fence::compare));
            let txn = Txn::new().when(compares).and_then([TxnOp::delete(name, None)]);
            let txn = txn.or_else(looks(fence.as_ref(), [self.look(key)]));
            let answer = self.change(key.as_str(), txn, None).await?;
            if answer.value.succeeded() {
                return Ok(());
            }
            let found = self.found(key, &answer.value, fence.as_ref());
            if found.fenced {
                return Err(self.fenced(key.as_str(), fence));
            }
            let now = found.key.as_ref().map_or(0, KeyValue::mod_revision);
            match wanted {
                _ if now == 0 && answer.repeated => return Ok(()),
                Wanted::Any => expected = now,
                Wanted::This(_) | Wanted::Never => return Err(self.changed(key, answer.repeated)),
            }
        }
    }

    /// Removes what is under `prefix` in one transaction.
    pub async fn delete_under(&self, prefix: &str) -> Result<(), DbError> {
        let (name, range) = (self.space.name_of(prefix), self.space.below(prefix));
        loop {
            let page = self.get(&name, GetOptions::new().with_keys_only()).await;
            let now = page.map_err(|no| self.members.read_error(no))?.revision;
            // A late one must not remove what was written after it.
            let old = |name: Vec<u8>| Compare::mod_revision(name, CompareOp::Less, now + 1);
            let mut compares = vec![old(name.clone().into()), old(range.start.clone()).with_range(range.end.clone())];
            let fence = self.fence_for(prefix);
            compares.extend(fence.as_ref().map(Fence::compare));
            let below = DeleteOptions::new().with_range(range.end.clone());
            let deletes = [TxnOp::delete(name.clone(), None), TxnOp::delete(range.start.clone(), Some(below))];
            let txn = Txn::new().when(compares).and_then(deletes).or_else(looks(fence.as_ref(), []));
            let answer = self.change(prefix, txn, None).await?;
            if answer.value.succeeded() {
                return Ok(());
            }
            if is_fenced(&answer.value, fence.as_ref()) {
                return Err(self.fenced(prefix, fence));
            }
        }
    }

    async fn change(&self, key: &str, txn: Txn, lease: Option<&Lease>) -> Result<Answer<TxnResponse>, DbError> {
        let answer = self.members.ask(|client| {
            let txn = txn.clone();
            async move { client.kv_client().txn(txn).await }
        });
        answer.await.map_err(|no| match (no, lease) {
            (NoAnswer::Refused(refusal), Some(lease)) if refusal.why == Why::NoLease => {
                DbError::LeaseEnded(lease.clone())
            }
            (NoAnswer::Refused(refusal), _) if refusal.why == Why::Full => {
                let place =
                    format!("etcd's members ({}); then compact, defragment and disarm its alarm", self.members.place());
                match key.parse() {
                    Ok(key) => DbError::Full { key, place },
                    Err(error) => error,
                }
            }
            (no, _) => self.members.write_error(key, no),
        })
    }

    fn put_txn(&self, key: &Key, value: &[u8], expected: i64, lease: i64, fence: Option<&Fence>) -> Txn {
        let name = self.space.name(key);
        let below = self.space.below(key.as_str());
        let absent = |name: Vec<u8>| Compare::create_revision(name, CompareOp::Equal, 0);
        let above = self.space.above(key);
        let mut compares = vec![
            Compare::mod_revision(name.clone(), CompareOp::Equal, expected),
            absent(below.start.clone()).with_range(below.end.clone()),
        ];
        compares.extend(above.iter().map(|above| absent(self.space.name_of(above).into_bytes())));
        compares.extend(fence.map(Fence::compare));
        let first = GetOptions::new().with_range(below.end).with_keys_only().with_limit(1);
        let mut own = vec![self.look(key), TxnOp::get(below.start, Some(first))];
        let keys_only = || Some(GetOptions::new().with_keys_only());
        own.extend(above.iter().map(|above| TxnOp::get(self.space.name_of(above), keys_only())));
        let put = TxnOp::put(name, value, Some(PutOptions::new().with_lease(lease)));
        Txn::new().when(compares).and_then([put]).or_else(looks(fence, own))
    }

    fn look(&self, key: &Key) -> TxnOp {
        TxnOp::get(self.space.name(key), None)
    }

    /// What the looks of a failed transaction saw.
    fn found(&self, key: &Key, answer: &TxnResponse, fence: Option<&Fence>) -> Found {
        let fenced = is_fenced(answer, fence);
        let mut found = Found { key: None, below: false, above: None, fenced };
        for seen in kvs(answer).into_iter().skip(usize::from(fence.is_some())).flatten() {
            match self.space.key(seen.key()) {
                Some(other) if other == *key => found.key = Some(seen),
                Some(other) if other.is_under(key.as_str()) => found.below = true,
                Some(other) => found.above = Some(other.to_string()),
                // Somebody else's key below the prefix: still in the way.
                None => found.below = true,
            }
        }
        found
    }

    fn changed(&self, key: &Key, repeated: bool) -> DbError {
        let what = "it had changed when the answer came";
        match repeated {
            true => DbError::Unclear { key: key.to_string(), place: self.members.place(), what: what.into() },
            false => DbError::Changed { key: key.clone() },
        }
    }

    fn fenced(&self, key: &str, fence: Option<Fence>) -> DbError {
        let epoch = fence.map_or_else(crate::db::layout::epoch, |fence| fence.key);
        DbError::Fenced { key: key.to_owned(), epoch }
    }
}

/// The looks of a transaction that fails, that at the fence first.
fn looks(fence: Option<&Fence>, own: impl IntoIterator<Item = TxnOp>) -> Vec<TxnOp> {
    let at = |fence: &Fence| TxnOp::get(fence.name.clone(), Some(GetOptions::new().with_keys_only()));
    fence.map(at).into_iter().chain(own).collect()
}

fn is_fenced(answer: &TxnResponse, fence: Option<&Fence>) -> bool {
    let Some(fence) = fence else { return false };
    let seen = kvs(answer).into_iter().next().unwrap_or_default();
    seen.first().map_or(0, KeyValue::mod_revision) != fence.revision
}

/// The keys each look saw, in the order of the looks.
fn kvs(answer: &TxnResponse) -> Vec<Vec<KeyValue>> {
    let looked = |response: TxnOpResponse| match response {
        TxnOpResponse::Get(mut page) => page.take_kvs(),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => Vec::new(),
    };
    answer.op_responses().into_iter().map(looked).collect()
}
