//! What seeds have found, each under the promise that was broken.

use super::acts::Act::*;
use super::acts::Code::*;
use super::acts::{Land, Turn};
use super::story::Story;

fn check(seed: u64, land: Land, turns: &[Turn]) {
    if let Err(failure) = (Story { seed, land, turns }).tell() {
        panic!("{}\n\n{}", failure.why, failure.told);
    }
}

#[test]
fn a_node_that_comes_back_at_once_waits_for_its_twin_to_go() {
    check(
        83,
        Land::of(1),
        &[
            (Push { stack: 0, web: 3, nodes: 12, code: Deaf }, 11640),
            (Push { stack: 0, web: 3, nodes: 10, code: Good }, 0),
            (Rollback { stack: 0, back: 1 }, 862),
        ],
    );
}

#[test]
fn a_journal_whose_write_was_in_doubt_is_cleared() {
    check(
        138,
        Land::of(1),
        &[
            (Away { server: 0, seconds: 26 }, 0),
            (Unclear { puts: 6 }, 0),
            (Push { stack: 2, web: 1, nodes: 13, code: Good }, 2661),
            (Rollback { stack: 0, back: 3 }, 23790),
            (Push { stack: 1, web: 3, nodes: 4, code: Dies }, 388),
        ],
    );
}

#[test]
fn a_healed_table_is_the_one_a_new_plan_would_make() {
    check(25, Land::of(1), &[(Push { stack: 0, web: 2, nodes: 4, code: Good }, 3089), (RemoveByHand { which: 43 }, 0)]);
}

#[test]
fn what_a_refused_push_left_never_serves() {
    check(
        43,
        Land::of(1),
        &[
            (Push { stack: 0, web: 2, nodes: 12, code: Good }, 0),
            (Scale { stack: 2, web: 3 }, 0),
            (Push { stack: 0, web: 2, nodes: 7, code: Falls }, 3200),
            (Push { stack: 0, web: 3, nodes: 3, code: Good }, 36),
            (PowerOff { server: 0, seconds: 3 }, 7),
            (Refuse { server: 0, after: 1 }, 24521),
        ],
    );
}

#[test]
fn a_port_is_taken_as_long_as_the_router_may_serve_it() {
    check(
        502,
        Land::of(1),
        &[
            (Push { stack: 0, web: 2, nodes: 2, code: Good }, 0),
            (Rest { stack: 0, alone: 0 }, 5),
            (Jump { seconds: 61601 }, 1741),
            (RemoveByHand { which: 12 }, 0),
            (RouterAway { seconds: 80 }, 1841),
            (Push { stack: 1, web: 3, nodes: 3, code: Good }, 0),
        ],
    );
}

#[test]
fn the_port_of_a_service_that_is_not_there_is_given_to_nobody_else() {
    check(
        181,
        Land::of(2),
        &[
            (Push { stack: 1, web: 0, nodes: 3, code: Good }, 290),
            (Push { stack: 0, web: 1, nodes: 2, code: Deaf }, 37257),
            (RemoveByHand { which: 13 }, 0),
            (PowerOff { server: 0, seconds: 1 }, 1584),
            (RemoveByHand { which: 36 }, 2792),
        ],
    );
}

#[test]
fn containers_that_came_to_have_one_name_on_two_servers_get_names_of_their_own() {
    check(
        249,
        Land::of(2),
        &[
            (Push { stack: 0, web: 2, nodes: 10, code: Good }, 22761),
            (PowerOff { server: 1, seconds: 118 }, 0),
            (Scale { stack: 0, web: 3 }, 6401),
        ],
    );
}

#[test]
fn what_may_exist_only_once_is_not_made_again_while_its_server_cannot_be_asked() {
    check(
        879,
        Land::of(3),
        &[
            (Push { stack: 0, web: 2, nodes: 10, code: Good }, 0),
            (Destroy { stack: 2 }, 0),
            (RemoveByHand { which: 21 }, 7028),
            (Kill { instants: 6 }, 379),
            (Push { stack: 1, web: 0, nodes: 7, code: Good }, 121),
            (Push { stack: 0, web: 2, nodes: 7, code: Good }, 0),
            (Away { server: 2, seconds: 2 }, 0),
            (Rollback { stack: 1, back: 2 }, 13628),
        ],
    );
}

#[test]
fn the_old_one_is_not_started_again_before_the_new_one_is_gone() {
    check(
        908,
        Land::of(1),
        &[
            (Push { stack: 0, web: 2, nodes: 3, code: Good }, 36426),
            (Away { server: 0, seconds: 3 }, 0),
            (Rollback { stack: 1, back: 1 }, 786),
            (Refuse { server: 0, after: 2 }, 26),
            (Fall { which: 17 }, 379),
            (RemoveByHand { which: 9 }, 37373),
            (Colour { stack: 0, colour: 0 }, 163),
            (Away { server: 0, seconds: 1 }, 69),
        ],
    );
}

#[test]
fn what_fell_is_started_again_although_the_clock_was_set_back() {
    check(
        59,
        Land::of(4),
        &[
            (Push { stack: 0, web: 3, nodes: 3, code: Falls }, 13105),
            (Stall { server: 0, seconds: 2 }, 3937),
            (Jump { seconds: -60483 }, 0),
        ],
    );
}

#[test]
fn a_node_that_may_exist_only_once_waits_for_what_a_refused_push_left_of_it() {
    check(
        419,
        Land::of(4),
        &[
            (Push { stack: 0, web: 2, nodes: 11, code: Good }, 784),
            (Refuse { server: 3, after: 15 }, 0),
            (Away { server: 3, seconds: 3 }, 220),
            (Push { stack: 0, web: 1, nodes: 3, code: Good }, 7500),
        ],
    );
}

#[test]
fn what_had_no_room_when_its_server_was_drained_gets_it_from_the_cloud() {
    check(
        38,
        Land::with_cloud(2),
        &[
            (Push { stack: 0, web: 2, nodes: 7, code: Good }, 0),
            (Push { stack: 2, web: 2, nodes: 14, code: Good }, 25395),
            (Drain { server: 1 }, 0),
        ],
    );
}

#[test]
fn a_server_is_not_removed_under_a_launch_that_has_chosen_it() {
    check(
        185,
        Land::of(4),
        &[
            (Push { stack: 0, web: 2, nodes: 1, code: Good }, 29847),
            (Remove { server: 3 }, 0),
            (Push { stack: 1, web: 2, nodes: 11, code: Releases }, 0),
        ],
    );
}

#[test]
fn a_standing_whose_write_was_in_doubt_is_noticed() {
    check(156, Land::of(1), &[(Drain { server: 0 }, 31), (Unclear { puts: 2 }, 0), (Resume { server: 0 }, 35)]);
}

#[test]
fn a_machine_that_never_comes_is_given_up_although_the_clock_was_set_back() {
    check(
        1593,
        Land::with_cloud(1),
        &[
            (Push { stack: 0, web: 2, nodes: 0, code: Good }, 0),
            (Push { stack: 2, web: 3, nodes: 7, code: Deaf }, 26032),
            (TakeAway { which: 0 }, 0),
            (Jump { seconds: -94239 }, 0),
        ],
    );
}

#[test]
fn nothing_of_a_stack_comes_back_with_a_change_that_came_too_late() {
    check(
        1089,
        Land::with_cloud(3),
        &[
            (Push { stack: 0, web: 2, nodes: 8, code: Good }, 2902),
            (Destroy { stack: 0 }, 310),
            (Away { server: 0, seconds: 166 }, 11414),
            (Colour { stack: 0, colour: 0 }, 3),
        ],
    );
}

#[test]
fn what_leaves_a_rented_server_gets_another_one() {
    check(
        390,
        Land::with_cloud(1),
        &[
            (Push { stack: 0, web: 2, nodes: 3, code: Good }, 2599),
            (Push { stack: 2, web: 3, nodes: 2, code: Falls }, 0),
            (PowerOff { server: 1, seconds: 5 }, 3697),
            (Drain { server: 1 }, 0),
        ],
    );
}

#[test]
fn what_was_lost_with_its_machine_begins_anew_on_another_one() {
    check(
        1911,
        Land::with_cloud(1),
        &[
            (Push { stack: 0, web: 2, nodes: 1, code: Good }, 0),
            (Push { stack: 2, web: 1, nodes: 13, code: Good }, 0),
            (Kill { instants: 0 }, 17399),
            (TakeAway { which: 4 }, 378),
            (Kill { instants: 22 }, 35532),
        ],
    );
}

#[test]
fn what_fell_keeps_its_room() {
    check(
        3115,
        Land::with_cloud(1),
        &[
            (Push { stack: 0, web: 0, nodes: 1, code: Deaf }, 0),
            (Push { stack: 1, web: 1, nodes: 5, code: Falls }, 0),
            (Quota { machines: 0 }, 1773),
            (Push { stack: 2, web: 1, nodes: 10, code: Releases }, 10972),
        ],
    );
}

#[test]
fn a_destruction_whose_last_write_was_in_doubt_refuses_nobody() {
    check(
        5453,
        Land::of(5),
        &[
            (Push { stack: 0, web: 2, nodes: 3, code: Good }, 213),
            (CutOff { seconds: 2 }, 621),
            (Push { stack: 0, web: 2, nodes: 4, code: Deaf }, 1136),
            (Refuse { server: 3, after: 8 }, 1430),
            (Unclear { puts: 6 }, 23705),
            (Destroy { stack: 0 }, 1237),
        ],
    );
}

#[test]
fn what_was_started_before_all_was_well_falls_once_more_and_then_rests() {
    check(
        6731,
        Land::of(1),
        &[
            (Push { stack: 2, web: 1, nodes: 3, code: Falls }, 36850),
            (Drain { server: 0 }, 0),
            (GiveUp { server: 0 }, 20324),
        ],
    );
}

#[test]
fn a_server_on_its_way_out_takes_no_containers_again() {
    check(
        7119,
        Land::of(2),
        &[
            (Push { stack: 0, web: 2, nodes: 15, code: Good }, 2698),
            (Push { stack: 0, web: 1, nodes: 9, code: Releases }, 2407),
            (RouterAway { seconds: 18 }, 30),
            (Restart { stack: 1 }, 0),
            (Push { stack: 2, web: 0, nodes: 6, code: Falls }, 237),
            (Drain { server: 0 }, 1811),
            (Add { server: 0 }, 0),
            (GiveUp { server: 1 }, 0),
            (Remove { server: 1 }, 213),
            (Push { stack: 0, web: 1, nodes: 3, code: Good }, 0),
            (Resume { server: 1 }, 0),
            (Resume { server: 1 }, 22),
            (Rival { seconds: 74 }, 0),
            (Unclear { puts: 9 }, 3025),
        ],
    );
}
