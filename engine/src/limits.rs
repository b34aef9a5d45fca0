//! Every bound and period that is the same for all profiles, each with its unit in the name.
//!
//! What differs between desktop, mobile and anchor is in [`crate::profile`]; what belongs to one packet is in
//! the table of [`crate::wire`]. Whatever a peer can make a node remember, send or compute has its bound in one of
//! these three places.

/// PROTOCOL section 4: a record this far ahead of the own clock is refused.
pub const FUTURE_MS_MAX: u64 = 10 * 60 * 1000;
/// PROTOCOL section 4: an AddressRecord lives this long.
pub const ADDRESS_RECORD_TTL_MS: u64 = 24 * 60 * 60 * 1000;
/// PROTOCOL section 4: addresses in one AddressRecord.
pub const ADDRESSES_MAX: usize = 8;
/// PROTOCOL section 4: addresses of one record within one /24 (IPv6 /48).
pub const ADDRESSES_PER_PREFIX_MAX: usize = 3;
/// PROTOCOL section 4: an ip:port that failed is left alone for this long.
pub const DIAL_FAILED_PAUSE_MS: u64 = 10 * 60 * 1000;
/// PROTOCOL section 4: dials a minute into one /24 (IPv6 /48), development scope exempt.
pub const DIALS_PER_PREFIX_MINUTE_MAX: u32 = 4;
/// ARCHITECTURE: more handshakes at once than this lose packets in bursts.
pub const DIALS_IN_FLIGHT_MAX: usize = 32;
/// Failed or recent dial targets remembered at most.
pub const DIAL_MEMORY_MAX: usize = 4096;

/// Bytes of UTF-8 in a post's text.
pub const POST_TEXT_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a whole post body.
pub const POST_BODY_BYTES_MAX: usize = 64 * 1024;
/// PROTOCOL section 4: blobs a post may name.
pub const POST_BLOBS_MAX: usize = 16;
/// Bytes of one blob.
pub const BLOB_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of the description of one picture.
pub const MEDIA_DESCRIPTION_BYTES_MAX: usize = 1024;
/// PROTOCOL section 7: a post up to this size travels inside its notification.
pub const POST_INLINE_BYTES_MAX: usize = 4 * 1024;
/// Bytes of UTF-8 in a display name.
pub const NAME_BYTES_MAX: usize = 128;
/// Bytes of UTF-8 in a profile's text about oneself.
pub const BIO_BYTES_MAX: usize = 2 * 1024;
/// Anchors a profile lists.
pub const PROFILE_ANCHORS_MAX: usize = 4;
/// Bytes of a connect string.
pub const CONNECT_STRING_BYTES_MAX: usize = 512;

/// PROTOCOL section 7: bytes of one event in author_recent_posts.
pub const EVENT_BYTES: usize = 37;
/// PROTOCOL section 7: events kept per author; the next one drops the oldest.
pub const EVENTS_MAX: usize = 7_000;

/// PROTOCOL section 6: between two RoutingDiffs to a peer.
pub const ROUTING_DIFF_MS: u64 = 2 * 60 * 1000;
/// PROTOCOL section 6: a peer that has gone is reported still for this long; mostly it is back.
pub const REMOVAL_DEBOUNCE_MS: u64 = 20_000;
/// PROTOCOL section 6, address resolution: how long a reporter may take.
pub const ASK_REPORTER_MS_MAX: u64 = 1_500;
/// And one that asks on its side.
pub const ASK_CLOSER_MS_MAX: u64 = 3_000;
/// Peers that are asked for one address at once, by whoever looks for it and by whoever asks on.
pub const ADDRESS_WAYS_MAX: usize = 3;
/// Questions of peers that are asked on, at once.
pub const ADDRESS_RELAYS_MAX: usize = 256;
/// When somebody has gone, the next diff does not wait out its two minutes, but this since the last.
pub const EARLY_DIFF_MS: u64 = 60_000;
/// And up to this later, each at random.
pub const EARLY_DIFF_SPREAD_MS: u64 = 10_000;
/// A peer whose diff is this late, from the one before, is asked whether it lives.
pub const SILENT_MS: u64 = 125_000;
/// What a peer reported stays for this long after it has gone.
pub const REPORTER_GRACE_MS: u64 = 30_000;
/// Peers that have gone of which it is remembered what they reported, so that who comes back is asked only for what changed.
pub const GONE_REPORTERS_MAX: usize = 16;
/// Ids of each that are remembered; of one that names more, none are.
pub const GONE_REPORTER_IDS_MAX: usize = 8_192;
/// Ids of a diff, bytes; more than fit are asked for by MapReconcile.
pub const DIFF_ITEMS_BYTES_MAX: usize = 60 * 1024;
/// Ids of one InitialMapSync, bytes: a cell that begins below this is the last.
pub const SYNC_ITEMS_BYTES_MAX: usize = 48 * 1024;
/// Ids that one frame takes in or forgets: a burst is spread over frames.
pub const MAP_SLICE_IDS: usize = 2_000;
/// PROTOCOL section 15: what a peer reports, for whether there is room for it.
pub const REPORT_IDS_TYPICAL: usize = 7_500;
/// PROTOCOL section 6: ids at hop 1 that a reporter may name; twice as many where it is an anchor.
pub const REPORTED_HOP_1_MAX: u64 = 256;
/// PROTOCOL section 6: ids at hop 2 that a reporter may name, whatever its peers do.
pub const REPORTED_HOP_2_MAX: u64 = 25_000;
/// And at least, however few the others name.
pub const REPORTED_HOP_2_MIN: u64 = 1_000;
/// A sync that failed is tried again after this, doubled with each failure.
pub const MAP_SYNC_RETRY_MS: u64 = 2_000;
/// And at most, however often it failed.
pub const MAP_SYNC_RETRY_MS_MAX: u64 = 30 * 60 * 1000;
/// PROTOCOL section 6: reconciling rounds before everything is asked for in full.
pub const RECONCILES_BEFORE_DUMP: u32 = 2;

/// PROTOCOL section 12: before this, a map is not worth storing.
pub const MAP_SNAPSHOT_FIRST_MS: u64 = 5 * 60 * 1000;
/// PROTOCOL section 12: what changed on the map is stored this often.
pub const MAP_JOURNAL_MS: u64 = 2 * 60 * 1000;
/// Between two slices of a map that is being stored.
pub const MAP_STORE_SLICE_MS: u64 = 20;
/// The journal grows to a quarter of its snapshot before there is a new one, and at least to so many bytes.
pub const MAP_JOURNAL_BYTES_MIN: usize = 64 * 1024;
/// Bytes of a stored map that are read at a start: twice what the largest one takes.
pub const MAP_STORED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What the reporters of the last run named counts for this long without them.
pub const REMEMBERED_MS: u64 = 10 * 60 * 1000;
/// Reporters of the last run leave so many places for those of this one.
pub const REPORTERS_SPARE: usize = 32;
/// PROTOCOL section 6: targets of one worm.
pub const WORM_TARGETS_MAX: usize = 16;
/// PROTOCOL section 6: requests that one search may cause, answers not counted.
pub const WORM_BUDGET: u16 = 303;
/// And one that nobody waits for.
pub const WORM_BUDGET_QUIET: u16 = 32;
/// PROTOCOL section 3: the highest TTL of any profile.
pub const WORM_TTL_MAX: u8 = 8;
/// PROTOCOL section 6: disjoint paths of one search.
pub const WORM_PATHS: u8 = 3;
/// PROTOCOL section 6: searches of others that a node remembers, and for how long.
pub const WORMS_MAX: usize = 1024;
/// How long a search is known, so that it is not taken twice.
pub const WORM_SEEN_MS: u64 = 10_000;
/// The longest that anybody waits for the answer to a worm, ms.
pub const WORM_PATIENCE_MS: u16 = 6_000;
/// A search that has come with so little patience left is four connections or more from where it began: shorter back by a dial.
pub const WORM_DIRECT_PATIENCE_MS: u64 = 2_000;
/// Those who are to be told directly, waiting for their dial at once.
pub const WORM_DIRECT_MAX: usize = 16;
/// Of those, how many by searches of one peer.
pub const WORM_DIRECT_PER_PEER_MAX: usize = 4;
/// PROTOCOL section 6: nodes near a target that are asked for its record in the end.
pub const WORM_REGION_MAX: usize = 16;
/// PROTOCOL section 6, a lookup against liars: nodes that one search asks at most, one by one, where worms have found nothing.
pub const VISITS_PER_SEARCH_MAX: u32 = 128;
/// Of those, how many at once.
pub const VISITS_IN_FLIGHT_MAX: usize = 12;
/// One of them may take so long, with its dial.
pub const VISIT_MS_MAX: u64 = 5_000;
/// Searches by visits at once.
pub const TOURS_MAX: usize = 4;
/// Such a search may take so long.
pub const TOUR_MS_MAX: u64 = 20_000;
/// The last step of a search by a person: anchors are asked, and those near the target visited.
pub const ASK_ANCHORS_AND_VISIT_MS_MAX: u64 = TOUR_MS_MAX + 1_000;
/// Ids near a target that one answer names.
pub const WORM_NEAR_MAX: u8 = 16;
/// A node that was not found is not searched for again so soon.
pub const NOT_FOUND_MS: u64 = 60_000;
/// Of those, how many are remembered.
pub const NOT_FOUND_MAX: usize = 256;
/// Records of others that a node keeps for those who look for them near its id.
pub const LEFT_RECORDS_MAX: usize = 256;
/// Of those, how many one peer may bring.
pub const LEFT_RECORDS_PER_PEER_MAX: usize = 24;
/// PROTOCOL section 6: connected nodes nearest in id, with whom a node leaves its record.
pub const RING_NEIGHBOURS: usize = 4;
/// And to how many each of them passes it on: 12 nodes of ranks 5-64 in all.
pub const RECORD_PASSES: usize = 3;
/// PROTOCOL section 6: anchors keep this many records.
pub const DIRECTORY_RECORDS_MAX: usize = 20_000;
/// Of one /24 (IPv6 /48), development scope exempt.
pub const DIRECTORY_PER_PREFIX_MAX: usize = 64;
/// PROTOCOL section 6: records are left with anchors anew after this.
pub const DIRECTORY_REFRESH_MS: u64 = 6 * 60 * 60 * 1000;
/// Addresses that an anchor dials back, waiting at once.
pub const DIAL_BACKS_MAX: usize = 64;
/// PROTOCOL section 6: of anchors.json, how many are left a record.
pub const DIRECTORY_LISTED: usize = 2;
/// PROTOCOL section 6: and of the known anchors, those closest in id.
pub const DIRECTORY_CLOSEST: usize = 3;
/// Address resolution: how long a worm may take.
pub const ASK_WORM_MS_MAX: u64 = 7_000;
/// And the anchors.
pub const ASK_ANCHORS_MS_MAX: u64 = 5_000;
/// Short connections that a feature waits for, at once.
pub const ERRANDS_MAX: usize = 64;

/// PROTOCOL section 6: a neighbour in the order of ids is old after this.
pub const RING_OLD_MS: u64 = 24 * 60 * 60 * 1000;
/// PROTOCOL section 6: so many of the ring slots stay with old neighbours.
pub const RING_OLD_MIN: usize = 2;
/// PROTOCOL section 6: at most one neighbour lies closer than this part of the expected spacing of ids.
pub const RING_CROWDING: f64 = 16.0;

/// PROTOCOL section 6, WideProbe: ids of a sample at most; 1/16 of what an honest node reports are some 440.
pub const WIDE_SAMPLE_MAX: usize = 1_024;
/// PROTOCOL section 6: random ids of a sample that must resolve.
pub const WIDE_MEMBERS_MAX: usize = 8;
/// Of those, how many may have left since.
pub const WIDE_MEMBERS_GONE_MAX: usize = 2;
/// PROTOCOL section 6: of those, how many may be of one /16 (IPv6 /32).
pub const WIDE_MEMBERS_PER_NETWORK_MAX: usize = 4;
/// PROTOCOL section 6: and how many must answer a dial.
pub const WIDE_MEMBERS_DIALLED: usize = 2;
/// A step of a trial may take so long.
pub const WIDE_STEP_MS_MAX: u64 = 12_000;
/// Who was tried is not tried again so soon.
pub const WIDE_TRIED_MS: u64 = 4 * 60 * 60 * 1000;
/// Of those, how many are remembered.
pub const WIDE_TRIED_MAX: usize = 256;
/// Evaluations that change nothing become rarer, up to this.
pub const WIDE_EVALUATION_MS_MAX: u64 = 160 * 60 * 1000;
/// The first search for neighbours comes so long after the first peer.
pub const RING_FIRST_MS: u64 = 20_000;
/// A neighbour or finger that was dialled is not dialled again so soon.
pub const RING_TRIED_MS: u64 = 30 * 60 * 1000;
/// While neighbours or fingers are missing, searches follow each other after this, doubling up to the evaluation's period.
pub const RING_PAUSE_MS_MIN: u64 = 15_000;

/// PROTOCOL section 11: ids in a bootstrap sample.
pub const SAMPLE_HINTS_MAX: usize = 200;
/// PROTOCOL section 6, InitialMapSync: ids of a peer's hop 3 at once, for a node that is bootstrapping.
pub const OUTER_IDS_MAX: usize = 256;
/// It asks for them once it has had peers for this long and too few of them, and again after this.
pub const OUTER_PAUSE_MS: u64 = 30_000;
/// Of those ids, one is looked up in this time.
pub const OUTER_LOOKUP_MS: u64 = 2_000;
/// A node counts as bootstrapping for this long at most.
pub const BOOTSTRAP_MS_MAX: u64 = 10 * 60 * 1000;
/// PROTOCOL section 6: peers to try in a Goodbye.
pub const GOODBYE_HINTS_MAX: usize = 16;
/// PROTOCOL section 6: of those, how many are dialled.
pub const GOODBYE_HINTS_DIALLED_MAX: usize = 2;

/// A connection whose Hello has not come after this is closed.
pub const HELLO_TIMEOUT_MS: u64 = 5_000;
/// Connections that wait for their Hello, at most.
pub const GREETINGS_MAX: usize = 128;
/// PROTOCOL section 6: an incumbent peer is safe for its first 10 min (strangers who dialled in are not).
pub const INCUMBENT_SAFE_MS: u64 = 10 * 60 * 1000;
/// PROTOCOL section 6: at most one swap in this time.
pub const SWAP_PAUSE_MS: u64 = 30_000;
/// PROTOCOL section 6: a challenger must beat the weakest incumbent by this factor, in hundredths.
pub const SWAP_MARGIN_PERCENT: u64 = 125;
/// PROTOCOL section 6: the first cooling-off of a dropped peer; it doubles with each drop.
pub const COOL_OFF_MS_MIN: u64 = 5 * 60 * 1000;
/// PROTOCOL section 6: the longest cooling-off.
pub const COOL_OFF_MS_MAX: u64 = 6 * 60 * 60 * 1000;
/// Peers remembered as cooling off, at most; the one that ends first leaves first.
pub const COOL_OFF_MEMORY_MAX: usize = 4096;
/// PROTOCOL section 3: a visit is closed after this long without a message.
pub const VISIT_IDLE_MS: u64 = 30_000;
/// Points of misconduct (see [`crate::refusal::Refusal::points`]) at which a peer is disconnected and cooled off.
pub const MISCONDUCT_POINTS_MAX: u32 = 100;
/// Points of misconduct forgiven per second, in thousandths.
pub const MISCONDUCT_FORGIVEN_MILLI_PER_S: u64 = 500;
/// PROTOCOL section 5: inbound strangers within one /24 (IPv6 /48), development scope exempt.
pub const STRANGERS_PER_PREFIX_MAX: usize = 2;

/// With three quarters of its slots taken, a node dials strangers for the rest no faster than this: many of them are full
/// too.
pub const FILL_PAUSE_MS: u64 = 2_000;
/// After so many strangers in a row who had no place, the next is dialled ever later.
pub const FILL_REFUSALS: u32 = 4;
/// And more than this many are not counted.
pub const FILL_REFUSALS_MAX: u32 = 32;
/// With each so many more, that pause doubles.
pub const FILL_REFUSALS_PER_DOUBLING: u32 = 2;
/// So often at most: half an hour and more.
pub const FILL_DOUBLINGS_MAX: u32 = 10;
/// The larger of two ids waits so long before it dials somebody it has just heard of.
pub const CROSSING_PAUSE_MS: u64 = 2_000;
/// First pause before a lost or failed peer is dialled again; doubles with each failure, always jittered.
pub const REDIAL_MS_MIN: u64 = 1_000;
/// Longest pause between dials of a wanted peer.
pub const REDIAL_MS_MAX: u64 = 10 * 60 * 1000;
/// Dial candidates kept at most (hints from anchors, Goodbye, last good peers).
pub const CANDIDATES_MAX: usize = 1024;
/// Addresses remembered for one candidate.
pub const CANDIDATE_ADDRESSES_MAX: usize = ADDRESSES_MAX;
/// Last good peers kept on disk.
pub const GOOD_PEERS_MAX: usize = 512;
/// PROTOCOL section 11: with no anchor reached by then, the node says so.
pub const ANCHOR_SILENCE_MS: u64 = 10_000;
/// PROTOCOL section 11: while slots are free, somebody is asked for candidates again after this; it doubles with each
/// sample that brings nobody new.
pub const SAMPLE_PAUSE_MS_MIN: u64 = 1_000;
/// The longest pause between two samples while slots stay free.
pub const SAMPLE_PAUSE_MS_MAX: u64 = 10 * 60 * 1000;

/// A connection where neither side is behind NAT is pinged when nothing else was sent for this long; routing
/// diffs, every 2 min, take the ping's place (PROTOCOL section 3).
pub const OPEN_PING_MS: u64 = 150_000;
/// Shortest pause between two writes of the same good peer to disk.
pub const GOOD_PEER_WRITE_MS: u64 = 60 * 60 * 1000;

/// Authors a person may follow.
pub const FOLLOWS_MAX: usize = 5_000;
/// PROTOCOL section 3: follow pull cycle.
pub const FOLLOW_PULL_MS: u64 = 60 * 60 * 1000;
/// A pull that nobody could answer is tried again after this.
pub const FOLLOW_PULL_RETRY_MS: u64 = 30_000;
/// PROTOCOL section 7: authors in one PullSyncRequest.
pub const PULL_AUTHORS_MAX: usize = 64;
/// Post ids in one PullSyncRequest.
pub const PULL_POSTS_MAX: usize = 256;
/// Bytes of posts and lists in one PullSyncResponse, before packet overhead.
pub const PULL_RESPONSE_BYTES_MAX: usize = 448 * 1024;
/// Hearts in one PullSyncResponse.
pub const PULL_HEARTS_MAX: usize = 256;
/// Deletions in one PullSyncResponse.
pub const PULL_DELETIONS_MAX: usize = 64;
/// Pulls under way at once, over all peers.
pub const PULLS_IN_FLIGHT_MAX: usize = 32;
/// Peers asked for one author before the pull waits for its next turn.
pub const PULL_PEERS_PER_ROUND_MAX: usize = 4;
/// A request without an answer after this has failed.
pub const REQUEST_TIMEOUT_MS: u64 = 10_000;
/// Bytes of a response that is not large.
pub const SMALL_RESPONSE_BYTES: usize = 64 * 1024;
/// A large response may take this long, as long as some of it comes within [`REQUEST_TIMEOUT_MS`].
pub const LARGE_RESPONSE_TIMEOUT_MS: u64 = 30_000;
/// Reads of the own disk on behalf of peers, under way at once.
pub const READS_FOR_PEERS_MAX: usize = 256;
/// List updates that wait for the disk, over all authors.
pub const LIST_UPDATES_WAITING_MAX: usize = 256;
/// Ids of posts that stand in a verified list and are not here yet, over all authors.
pub const WANTED_POSTS_MAX: usize = 65_536;

/// PROTOCOL section 12: what was learned from the network reaches the disk within this.
pub const WRITE_BEHIND_MS_MAX: u64 = 2_000;
/// Batches handed to the disk and not yet acknowledged, at most: past it the network waits.
pub const PERSIST_IN_FLIGHT_MAX: usize = 1024;
/// Inputs taken into one frame by a driver.
pub const INPUTS_PER_FRAME_MAX: usize = 1024;

/// PROTOCOL section 7: slices of a blob in one FileResponse.
pub const FILE_SLICES_MAX: u32 = 8;
/// PROTOCOL section 7: authors in one AuthorUpdatePush.
pub const PUSH_AUTHORS_MAX: usize = 64;
/// Hearts kept of one post.
pub const HEARTS_PER_POST_MAX: usize = 256;
/// Hearts kept in all.
pub const HEARTS_MAX: usize = 200_000;
/// PROTOCOL section 9: deletions remembered of one kept author.
pub const DELETIONS_PER_AUTHOR_MAX: usize = 8_000;
/// PROTOCOL section 9: deletions remembered in all.
pub const DELETIONS_MAX: usize = 1_000_000;
/// A blob that no post names is forgotten after this.
pub const STAGED_MS: u64 = 60 * 60 * 1000;
/// Bytes of blobs that wait for their post.
pub const STAGED_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Stored lists that are gone through at once for what is not here.
pub const LIST_RECHECKS_IN_FLIGHT_MAX: usize = 4;
/// Peers asked for the own list after a start; later one every [`OWN_LIST_MS`].
pub const OWN_LIST_PEERS: usize = 3;
/// See [`OWN_LIST_PEERS`].
pub const OWN_LIST_MS: u64 = 60 * 60 * 1000;
/// PROTOCOL section 7: swarm links of one author; 6 are looked for.
pub const SWARM_LINKS_MAX: usize = 8;
/// See [`SWARM_LINKS_MAX`].
pub const SWARM_LINKS_WANTED: usize = 6;
/// And of these, links to nodes seen in one /24 (IPv6 /48), development scope exempt: whoever has many addresses of one network has no
/// more of an author's places than this.
pub const SWARM_LINKS_PER_PREFIX_MAX: usize = 2;
/// Nodes remembered that have something of an author.
pub const KEEPERS_SEEN_MAX: usize = 16;
/// Others who keep an author, told to whoever offers a link.
pub const SWARM_REFERRALS_MAX: usize = 3;
/// Records remembered of keepers that are no peers.
pub const KEEPER_PLACES_MAX: usize = 1_024;
/// Keepers that are no peers are called for news and links this often an hour, at most; a quarter of it at once.
pub const SWARM_CALLS_PER_HOUR: u64 = 240;
/// Calls under way at once.
pub const SWARM_CALLS_IN_FLIGHT_MAX: usize = 8;
/// And waiting.
pub const SWARM_CALLS_WAITING_MAX: usize = 256;
/// Whoever is not there so many times in a row is called no more.
pub const SWARM_CALL_FAILURES_MAX: u32 = 3;
/// A call ends once nothing was said for so long.
pub const SWARM_CALL_QUIET_MS: u64 = 10_000;
/// Or after this, whatever is said.
pub const SWARM_CALL_MS_MAX: u64 = 60_000;
/// Links are looked for of one author after the other, this far apart: less than what a peer takes of offers and their answers.
pub const SWARM_LOOK_EVERY_MS: u64 = 2_500;
/// So many times at once: with the answers to the offers of others, a peer still takes them all.
pub const SWARM_LOOKS_AT_ONCE: u64 = 16;
/// Links of a kept author are looked for within this after its first list came; the pause doubles while none is found.
pub const SWARM_LOOK_MS: u64 = 60_000;
/// And after this at the latest.
pub const SWARM_LOOK_MS_MAX: u64 = 6 * 60 * 60 * 1000;
/// PROTOCOL section 7: news of authors is told along the chain within this, several at once.
pub const CHAIN_DELAY_MS: u64 = 10_000;
/// PROTOCOL section 7: authors kept for others, at least, at most.
pub const HOSTED_MIN: usize = 16;
/// See [`HOSTED_MIN`].
pub const HOSTED_MAX: usize = 64;
/// PROTOCOL section 7: for so long at least.
pub const HOSTED_MS_MIN: u64 = 30 * 24 * 60 * 60 * 1000;
/// Requests for slices of blobs under way at once.
pub const FETCHES_MAX: usize = 16;
/// And for one blob.
pub const FETCHES_PER_BLOB_MAX: usize = 4;
/// And of one peer; its own limit is 4.
pub const FETCHES_PER_PEER_MAX: usize = 3;
/// A blob that nobody asked could give is looked for again after this; the pause doubles up to the pull cycle.
pub const FETCH_PAUSE_MS: u64 = 30_000;
/// A peer that had no room for an answer is asked again after this; the pause doubles with each time.
pub const CROWDED_PAUSE_MS: u64 = 1_000;
/// Slices that are on their way to the disk, at most: past it no more are asked for.
pub const SLICES_IN_FLIGHT_MAX: usize = 256;
/// Answers with slices that are being read for peers.
pub const FILE_READS_MAX: usize = 16;
/// PROTOCOL section 7: eviction begins here, percent of what there may be.
pub const EVICTION_BEGINS_PERCENT: u64 = 95;
/// And ends here.
pub const EVICTION_ENDS_PERCENT: u64 = 90;
/// PROTOCOL section 7: what is worth so much without copies goes for these only once they are proved.
pub const PROOF_WORTH_MIN: u64 = 1_000;
/// By so many holders.
pub const PROOFS_OF_COPIES: usize = 2;
/// Of so many that are asked at most.
pub const PROOFS_ASKED_MAX: usize = 4;
/// Files an hour whose holders are asked.
pub const PROOFS_PER_HOUR: u64 = 240;
/// Questions to holders under way, past which no more are put.
pub const PROOFS_IN_FLIGHT_MAX: usize = 8;
/// Files whose holders are to be asked, at most.
pub const PROOFS_WANTED_MAX: usize = 1_024;
/// Posts remembered for having gone for lack of room.
pub const GONE_POSTS_MAX: usize = 8_192;
/// The least budget that can be set, bytes.
pub const BUDGET_BYTES_MIN: u64 = 64_000_000;
/// The largest, bytes: all of it is mapped into memory's addresses, of which there are 2^47.
pub const BUDGET_BYTES_MAX: u64 = 16_000_000_000_000;
/// PROTOCOL section 7: own content takes this share of the budget at most.
pub const OWN_SHARE: u64 = 4;
/// And its texts, in the pages that they take, this: with a quarter, everything else in the part for rows would go, and there were still
/// too much.
pub const OWN_ROWS_SHARE: u64 = 6;
/// Authors heard of from whom those kept for others are chosen.
pub const HOST_CANDIDATES_MAX: usize = 256;
/// PROTOCOL section 7: rounds in which no peer had what is missing of an author, before a worm asks.
pub const FRUITLESS_ROUNDS_BEFORE_WORM: u32 = 3;
/// PROTOCOL section 7: worms for holders an hour.
pub const HOLDER_WORMS_PER_HOUR: u64 = 12;
