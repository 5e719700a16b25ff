//! stub
use super::{PackError, Plan, Repository};
pub(super) fn detect(_: &Repository) -> Option<String> {
    None
}
pub(super) fn plan(_: &Repository) -> Result<Plan, PackError> {
    Ok(Plan::default())
}
