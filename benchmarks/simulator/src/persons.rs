//! The people of the swarm: they set a name, follow others and post, at random times within what the scenario says.

use crate::chance::spread;
use crate::host::Asked;
use crate::queue::{Event, HostNumber};
use crate::simulation::Simulation;
use distsoc_engine::domain::{BlobRef, Cut, MediaDescription, Name, PostText};
use distsoc_engine::io::{Call, CallError, CallId, Input, Reply};

/// The pause between two deeds of somebody who sets up their node, ms.
const SETTING_UP_MS: [u64; 2] = [500, 3_000];

impl Simulation {
    /// When a person first does something.
    pub fn plan_first_deed(&mut self, number: HostNumber) {
        let earliest_us = self.now_us + self.scenario.start_within_s * 1_000_000;
        let at_us = earliest_us + self.chance.between(1_000_000, 10_000_000);
        self.queue.at(at_us, Event::Deed(number));
    }

    /// A person's next deed: first a name, then whom they follow, then posts.
    pub fn do_deed(&mut self, number: HostNumber) {
        let persons = self.scenario.persons;
        let [low, high] = SETTING_UP_MS;
        let soon_us = self.now_us + self.chance.between(low * 1000, high * 1000);
        let host = &mut self.hosts[number as usize];
        let waits = host
            .asked
            .values()
            .any(|asked| !matches!(asked.what, Call::Post { .. }));
        if !host.is_on() || waits {
            self.queue.at(soon_us, Event::Deed(number));
            return;
        }
        host.deeds += 1;
        let deed = host.deeds - 1;
        if deed == 0 {
            if persons.profiles {
                let name = Name::new(&format!("Person {number}")).expect("a short name");
                self.ask(
                    number,
                    Call::SetProfile {
                        name: Some(name),
                        bio: None,
                        anchors: None,
                    },
                );
            }
            self.queue.at(soon_us, Event::Deed(number));
            return;
        }
        let (deed, popular) = (deed as usize, self.scenario.popular);
        if deed <= popular.authors {
            self.follow_popular(number, deed - 1);
            self.queue.at(soon_us, Event::Deed(number));
            return;
        }
        if deed <= popular.authors + persons.follows && self.hosts.len() > 1 {
            self.follow_somebody(number);
            self.queue.at(soon_us, Event::Deed(number));
            return;
        }
        let is_silent = !popular.others_post && !self.is_popular(number);
        if persons.posts_per_hour == 0 || is_silent {
            return;
        }
        let pause_us = 3_600_000_000 / u64::from(persons.posts_per_hour);
        let next_us = (self.now_us + self.chance.between(pause_us / 2, pause_us * 3 / 2))
            .max(persons.posts_from_s * 1_000_000);
        let last_us = self.scenario.duration_s.saturating_sub(persons.quiet_s) * 1_000_000;
        let from_us = persons.posts_from_s * 1_000_000;
        if (from_us..last_us).contains(&self.now_us) {
            self.post_something(number);
        }
        if next_us < last_us {
            self.queue.at(next_us, Event::Deed(number));
        }
    }

    fn follow_somebody(&mut self, number: HostNumber) {
        let others = self.hosts.len() as u64 - 1;
        let drawn = self.chance.below(others) as HostNumber;
        let other = if drawn >= number { drawn + 1 } else { drawn };
        self.follow(number, other);
    }

    fn follow_popular(&mut self, number: HostNumber, which: usize) {
        let other = (self.scenario.anchors + which) as HostNumber;
        let percent = self.scenario.popular.followers_percent;
        if other != number && self.chance.happens(percent * 10_000) {
            self.follow(number, other);
        }
    }

    fn follow(&mut self, number: HostNumber, other: HostNumber) {
        let is_dialled = self.scenario.persons.places && !self.hosts[other as usize].behind_nat;
        let place = is_dialled.then(|| self.place_of(other));
        let node = self.hosts[other as usize].node_id();
        self.ask(number, Call::Follow { node, place });
    }

    fn post_something(&mut self, number: HostNumber) {
        let [low, high] = self.scenario.persons.text_bytes;
        let bytes = self.chance.between(low as u64, high as u64) as usize;
        let host = &mut self.hosts[number as usize];
        host.posts_made += 1;
        // Each text is another, so that no two posts are the same.
        let mut text = format!("{} of {number}: ", host.posts_made);
        while text.len() < bytes {
            text.push((b'a' + self.chance.below(26) as u8) as char);
        }
        let text = PostText::new(&text).expect("letters within the limit");
        let persons = self.scenario.persons;
        if persons.pictures_percent > 0 && self.chance.happens(persons.pictures_percent * 10_000) {
            let [low, high] = persons.picture_bytes;
            let bytes = self.chance.between(low as u64, high as u64) as usize;
            self.post_picture(number, text, bytes);
        } else {
            self.post(number, text, None);
        }
    }

    fn post(&mut self, number: HostNumber, text: PostText, picture: Option<BlobRef>) {
        let description = MediaDescription::new("a picture").expect("a short text");
        let media = picture.map(|blob| (blob, description)).into_iter();
        let what = Call::Post {
            text,
            parent: None,
            media: media.collect(),
        };
        self.ask(number, what);
    }

    /// A person posts with a picture that nobody else has; the post is made once the picture is durable.
    pub fn post_picture(&mut self, number: HostNumber, text: PostText, bytes: usize) {
        let salt = self.chance.below(u64::MAX);
        let picture: Vec<u8> = (0..bytes as u64)
            .map(|place| spread(salt ^ (place / 8)).to_be_bytes()[(place % 8) as usize])
            .collect();
        let cut = Cut::new(&picture).expect("a length within bounds");
        let call = self.ask(number, Call::Stage(cut.slices().collect()));
        let drafts = &mut self.hosts[number as usize].drafts;
        drafts.insert(call, (text, cut.blob()));
    }

    /// A person asks their node for something.
    pub fn ask(&mut self, number: HostNumber, what: Call) -> CallId {
        self.last_call += 1;
        let call = CallId(self.last_call);
        let asked = Asked {
            at_us: self.now_us,
            what: what.clone(),
        };
        self.hosts[number as usize].asked.insert(call, asked);
        self.note(number, 8, &call.0.to_be_bytes());
        self.give(number, Input::Call { call, what });
        call
    }

    /// A node answers its person.
    pub fn answered(&mut self, number: HostNumber, call: CallId, result: Result<Reply, CallError>) {
        let now_us = self.now_us;
        let host = &mut self.hosts[number as usize];
        let Some(asked) = host.asked.remove(&call) else {
            self.violate(
                Some(number),
                format!("call {} was answered twice, or never made", call.0),
            );
            return;
        };
        match (result, asked.what) {
            (Ok(Reply::Found(found)), Call::Find(_)) => host.finds.push(Some(found)),
            (Err(CallError::NotFound(_)), Call::Find(_)) => host.finds.push(None),
            (Ok(Reply::Posted(id)), Call::Post { media, .. }) => {
                host.acknowledged.push((id, now_us));
                host.pictures
                    .extend(media.iter().map(|(blob, _)| (id, *blob)));
                self.counts.posts += 1;
            }
            (Ok(Reply::Done), Call::Stage(_)) => {
                if let Some((text, picture)) = host.drafts.remove(&call) {
                    self.post(number, text, Some(picture));
                }
            }
            (Ok(Reply::Done), Call::Follow { node, .. }) => {
                if let Some(other) = self.numbers.get(&node) {
                    host.follows.insert(*other);
                    host.followed_us.insert(*other, now_us);
                }
            }
            (Ok(Reply::Done), Call::Unfollow(node)) => {
                if let Some(other) = self.numbers.get(&node) {
                    host.follows.remove(other);
                    host.followed_us.remove(other);
                }
            }
            (Ok(Reply::Done), Call::Delete(post)) => {
                host.acknowledged.retain(|(id, _)| *id != post);
                host.pictures.retain(|(id, _)| *id != post);
                host.taken_back.push(post);
            }
            (Ok(_), _) => {}
            (Err(error), what) => {
                host.calls_failed += 1;
                if !self.scenario.expect.calls_may_fail {
                    self.violate(Some(number), format!("{what:?} failed: {error}"));
                }
            }
        }
    }
}
