//! Repositories of every kind are pushed, and answer.

use crate::harness::{Hq, Repository};

#[test]
fn a_static_site_is_live_after_its_push() {
    let hq = Hq::start();
    let site = Repository::sample("static");
    let done = hq.push(&site, "pages").succeeded();
    eprintln!("{done}");
    assert!(hq.page("pages.localhost", "/").contains("<h1>"));
    assert_eq!(hq.get("pages.localhost", "/nothing").status, 404);
}
