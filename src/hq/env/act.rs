//! A stack's variables in the tree: the values as files, and the versions that releases saw, all of them sealed.

use super::EnvError;
use crate::db::{DbError, Entry, Guard, layout};
use crate::env::Env;
use crate::hq::Hq;
use crate::names::StackName;
use crate::seal::files::replace;
use crate::seal::is_sealed;

impl Hq {
    /// The variables as they are now, hand edits included. A closing newline that an editor leaves is not part of a
    /// one-line value.
    ///
    /// # Errors
    /// When they cannot be read, or one is not text.
    pub async fn env(&self, stack: &StackName) -> Result<Env, DbError> {
        let mut env = Env::new();
        for entry in layout::all(&*self.db, &layout::env_prefix(stack)).await? {
            let damaged = |what: &str| DbError::Damaged {
                key: entry.key.clone(),
                what: what.to_owned(),
                place: self.db.place(&entry.key),
            };
            let name = entry.key.last().parse().map_err(|_| damaged("its name is not a variable's"))?;
            let value = self.launcher.opened(&entry.key, &entry.value)?;
            let value = String::from_utf8(value.into_owned()).map_err(|_| damaged("its value is not UTF-8 text"))?;
            let by_hand = !is_sealed(&entry.value);
            let one_line = value.strip_suffix('\n').filter(|rest| by_hand && !rest.contains('\n'));
            env.set(name, one_line.unwrap_or(&value));
        }
        Ok(env)
    }

    /// Makes the tree hold exactly these variables.
    ///
    /// # Errors
    /// When they cannot be written; then some may be.
    pub async fn put_env(&self, stack: &StackName, env: &Env) -> Result<(), DbError> {
        let old = self.env(stack).await?;
        for (name, value) in env.iter().filter(|(name, value)| old.value(name) != Some(value)) {
            let sealed = self.launcher.seal.seal(value.as_bytes());
            self.db.put(&layout::env(stack, name), &sealed, Guard::Any, None).await?;
        }
        for (name, _) in old.iter().filter(|(name, _)| env.value(name).is_none()) {
            self.db.delete(&layout::env(stack, name), Guard::Any).await?;
        }
        Ok(())
    }

    /// The number of a kept version equal to `env`, else a new one that is written first.
    ///
    /// # Errors
    /// When versions cannot be read or written.
    pub async fn env_version(&self, stack: &StackName, env: &Env) -> Result<u64, DbError> {
        let mut last = 0;
        for entry in layout::all(&*self.db, &layout::env_versions_prefix(stack)).await? {
            let number = entry.key.last().strip_suffix(".json").and_then(|text| text.parse().ok());
            let Some(number) = number else { continue };
            last = last.max(number);
            // A damaged old version must not stop a new release: it is only a candidate here.
            let kept = self.launcher.opened(&entry.key, &entry.value).ok();
            if kept.and_then(|kept| serde_json::from_slice::<Env>(&kept).ok()).is_some_and(|kept| kept == *env) {
                return Ok(number);
            }
        }
        let text = serde_json::to_vec(env).expect("variables have string keys and serialise");
        let key = layout::env_version(stack, last + 1);
        self.db.put(&key, &self.launcher.seal.seal(&text), Guard::Absent, None).await?;
        Ok(last + 1)
    }

    /// Seals what stands open in the tree, or is sealed with an older key; gives how many values.
    ///
    /// # Errors
    /// When the tree cannot be read or written, or a value cannot be opened; then some may be done.
    pub async fn seal_env(&self) -> Result<usize, DbError> {
        let mut sealed = 0;
        let stacks = self.known_stacks().await?;
        let of_stacks = stacks.iter().flat_map(|stack| [layout::env_prefix(stack), layout::env_versions_prefix(stack)]);
        for prefix in of_stacks.chain([layout::CERTIFICATES.to_owned(), layout::ACCOUNTS.to_owned()]) {
            for entry in layout::all(&*self.db, &prefix).await? {
                if !self.launcher.seal.is_current(&entry.value) {
                    self.seal_again(entry).await?;
                    sealed += 1;
                }
            }
        }
        Ok(sealed)
    }

    async fn seal_again(&self, entry: Entry) -> Result<(), DbError> {
        let plain = self.launcher.opened(&entry.key, &entry.value)?;
        // An editor's closing newline; see above.
        let bare = match (is_sealed(&entry.value), plain.strip_suffix(b"\n")) {
            (false, Some(bare)) if !bare.contains(&b'\n') => bare,
            _ => &plain,
        };
        let again = self.launcher.seal.seal(bare);
        match self.db.put(&entry.key, &again, Guard::Unchanged(entry.version), None).await {
            // Whoever wrote it since has sealed it, or it is gone.
            Ok(_) | Err(DbError::Changed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes a new key, seals everything with it, and forgets the old one; gives how many values. When it was cut off,
    /// both keys open, and the next time finishes it.
    ///
    /// # Errors
    /// When the key's file or the tree cannot be written.
    pub async fn rotate_env_key(&self) -> Result<usize, EnvError> {
        let _alone = self.key_making.lock().await;
        let seal = &self.launcher.seal;
        let file = seal.file().ok_or(EnvError::NoFile)?;
        let turned = seal.turned();
        replace(file, &turned)?;
        seal.take(turned);
        let sealed = self.seal_env().await?;
        let first = seal.first();
        replace(file, &first)?;
        seal.take(first);
        Ok(sealed)
    }
}
