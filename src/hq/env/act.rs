//! A stack's variables in the tree: the values as files, and the versions that releases saw.

use crate::db::{DbError, Guard, layout};
use crate::env::Env;
use crate::hq::Hq;
use crate::names::StackName;

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
            let value = String::from_utf8(entry.value.clone()).map_err(|_| damaged("its value is not UTF-8 text"))?;
            let one_line = value.strip_suffix('\n').filter(|rest| !rest.contains('\n'));
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
            self.db.put(&layout::env(stack, name), value.as_bytes(), Guard::Any, None).await?;
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
            if layout::parse_json::<Env>(&*self.db, &entry).is_ok_and(|kept| kept == *env) {
                return Ok(number);
            }
        }
        layout::put_json(&*self.db, &layout::env_version(stack, last + 1), env, Guard::Absent).await?;
        Ok(last + 1)
    }
}
