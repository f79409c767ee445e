//! The grammar of one story: a scene of people, things and places, told sentence by sentence.
//!
//! First each person is introduced with one fact (what they have, or where they are). Then things change
//! hands, people walk about, the weather does what it likes, and each fact is asked about once. A story
//! ends when nothing is left to ask and the time for new facts is over.
//!
//! Where memory decides, the choice's options are what memory leaves, and its prior is what a reader knows
//! who has the scene (the initials, the things, the position in the text) but no name tail and no fact.

use super::StoryOptions;
use super::clock::Clock;
use super::words::*;
use crate::derivation::{Alternative, Question as Asked, Stop, Tag, Teller, evenly};

const WHO: &str = "Who has the ";
const WHERE: &str = "Where is ";
const AT_THE: &str = "? At the ";
const THE_END: &str = "The end.\n";

/// Weights of the two kinds of introduction.
const INTRODUCTIONS: [Alternative; 2] =
    [Alternative { text: " has the ", weight: 3.0 }, Alternative { text: " is at the ", weight: 1.0 }];

/// The probability of ending where everything was asked about but new facts would still be welcome.
const EARLY_END: f64 = 0.25;

/// The share of people among sentences that are no questions: more while facts may still change.
const ACTING_EARLY: f64 = 0.9;
const ACTING_LATE: f64 = 0.5;

#[derive(Clone, Copy)]
enum Action {
    Give,
    Walk,
    See,
    Hum,
    Smile,
}

/// What a person can do, with its weight among what is possible.
const ACTIONS: [(Action, &str, f64); 5] = [
    (Action::Give, " gives the ", 8.0),
    (Action::Walk, " goes to the ", 2.0),
    (Action::See, " sees ", 1.0),
    (Action::Hum, " hums a ", 1.0),
    (Action::Smile, " smiles ", 1.0),
];

struct Person {
    initial: &'static str,
    tail: [&'static str; 3],
    place: Option<Place>,
}

struct Place {
    noun: &'static str,
    clock: Clock,
}

struct Object {
    noun: &'static str,
    holder: usize,
    clock: Clock,
}

#[derive(Clone, Copy)]
enum Question {
    Holder { object: usize },
    Place { person: usize },
}

/// What may follow a sentence. Numbers are indices of [`WORLD`] and of the cast.
#[derive(Clone, Copy)]
enum Next {
    AskHolder,
    AskPlace,
    End,
    World(usize),
    Act(usize),
}

struct Scene<'a> {
    options: &'a StoryOptions,
    start: usize,
    people: Vec<Person>,
    objects: Vec<Object>,
}

/// Tells one story from its first byte to its end mark.
pub fn tell(teller: &mut Teller, options: &StoryOptions) -> Result<(), Stop> {
    let mut scene = Scene { options, start: teller.position(), people: Vec::new(), objects: Vec::new() };
    while scene.people.len() < options.people {
        scene.introduce(teller)?;
    }
    while scene.sentence(teller)? {}
    Ok(())
}

/// Chooses among pairs of a meaning and its text, and returns the meaning.
fn choose<M: Copy>(
    teller: &mut Teller,
    tag: Tag,
    ways: Vec<(M, Alternative)>,
    prior: Option<&[Alternative]>,
) -> Result<M, Stop> {
    let (meanings, options): (Vec<M>, Vec<Alternative>) = ways.into_iter().unzip();
    teller.choose(tag, &options, prior).map(|picked| meanings[picked])
}

/// Chooses evenly among the words that `taken` leaves.
fn fresh(
    teller: &mut Teller,
    words: &[&'static str],
    taken: impl Fn(&str) -> bool,
) -> Result<&'static str, Stop> {
    let left: Vec<&'static str> = words.iter().copied().filter(|word| !taken(word)).collect();
    teller.choose(Tag::Free, &evenly(&left), None).map(|picked| left[picked])
}

impl Scene<'_> {
    fn introduce(&mut self, teller: &mut Teller) -> Result<(), Stop> {
        let initial =
            fresh(teller, &INITIALS, |word| self.people.iter().any(|person| person.initial == word))?;
        let mut tail = [""; 3];
        for (part, syllables) in tail.iter_mut().zip(NAME_TAIL) {
            *part = fresh(teller, syllables, |_| false)?;
        }
        let mut person = Person { initial, tail, place: None };
        if teller.choose(Tag::Template, &INTRODUCTIONS, None)? == 0 {
            let noun = fresh(teller, &OBJECTS, |word| self.objects.iter().any(|object| object.noun == word))?;
            teller.fixed(". ")?;
            let clock = Clock::starting(teller.position());
            self.objects.push(Object { noun, holder: self.people.len(), clock });
        } else {
            let noun = fresh(teller, &PLACES, |_| false)?;
            teller.fixed(". ")?;
            person.place = Some(Place { noun, clock: Clock::starting(teller.position()) });
        }
        self.people.push(person);
        Ok(())
    }

    /// One sentence after the introductions; false after the end mark.
    fn sentence(&mut self, teller: &mut Teller) -> Result<bool, Stop> {
        let position = teller.position();
        self.lapse(position);
        let questions = self.questions(position);
        let next = choose(teller, Tag::Template, self.next(position, &questions), None)?;
        self.decline(position);
        match next {
            Next::AskHolder => self.ask_holder(teller, &questions)?,
            Next::AskPlace => self.ask_place(teller, &questions)?,
            Next::End => return Ok(false),
            Next::World(sentence) => {
                fresh(teller, WORLD[sentence].1, |_| false)?;
                teller.fixed(". ")?;
            }
            Next::Act(person) => self.act(teller, person, position)?,
        }
        Ok(true)
    }

    /// The ways on from a sentence boundary. Their weights sum to one.
    fn next(&mut self, position: usize, questions: &[(Question, f64)]) -> Vec<(Next, Alternative<'static>)> {
        let (mut who, mut whereabouts) = (0.0, 0.0);
        for &(question, weight) in questions {
            match question {
                Question::Holder { .. } => who += weight,
                Question::Place { .. } => whereabouts += weight,
            }
        }
        let silent = (1.0 - who - whereabouts).max(0.0);
        let open = self.facts(position).any(|(_, clock, _)| clock.open);
        let early = self.may_state(position);
        let ending = match (open, early) {
            (true, _) => 0.0,
            (false, true) => EARLY_END,
            (false, false) => 1.0,
        };
        let going_on = silent * (1.0 - ending);
        let acting = going_on * if early { ACTING_EARLY } else { ACTING_LATE };
        let mut ways = vec![
            (Next::AskHolder, Alternative { text: WHO, weight: who }),
            (Next::AskPlace, Alternative { text: WHERE, weight: whereabouts }),
            (Next::End, Alternative { text: THE_END, weight: silent * ending }),
        ];
        let weight = (going_on - acting) / WORLD.len() as f64;
        ways.extend((0..WORLD.len()).map(|at| (Next::World(at), Alternative { text: WORLD[at].0, weight })));
        let weight = acting / self.people.len() as f64;
        let actors = self.people.iter().enumerate();
        ways.extend(actors.map(|(at, person)| (Next::Act(at), Alternative { text: person.initial, weight })));
        ways.retain(|(_, way)| way.weight > 0.0);
        ways
    }

    /// Are new facts still welcome? Later ones would be asked about after the window's end.
    fn may_state(&self, position: usize) -> bool {
        position - self.start < self.options.horizon
    }

    /// Every fact with its clock and the distance its answer would have if asked at `position`.
    fn facts(&mut self, position: usize) -> impl Iterator<Item = (Question, &mut Clock, usize)> {
        let objects = self.objects.iter_mut().enumerate().map(move |(object, held)| {
            let answer = position + WHO.len() + held.noun.len() + "? ".len();
            let distance = answer - held.clock.stated;
            (Question::Holder { object }, &mut held.clock, distance)
        });
        let places = self.people.iter_mut().enumerate().filter_map(move |(person, placed)| {
            let name = placed.initial.len() + placed.tail.iter().map(|part| part.len()).sum::<usize>();
            let answer = position + WHERE.len() + name + AT_THE.len();
            let clock = &mut placed.place.as_mut()?.clock;
            let distance = answer - clock.stated;
            Some((Question::Place { person }, clock, distance))
        });
        objects.chain(places)
    }

    /// A fact out of reach is not asked about any more: it happens where several were due at one boundary.
    fn lapse(&mut self, position: usize) {
        let farthest = self.options.farthest;
        for (_, clock, distance) in self.facts(position) {
            clock.open &= distance <= farthest;
        }
    }

    fn decline(&mut self, position: usize) {
        let nearest = self.options.nearest;
        for (_, clock, distance) in self.facts(position) {
            if distance >= nearest {
                clock.declined = Some(distance);
            }
        }
    }

    /// The questions that may come now, with probabilities: any of them with the probability that at least
    /// one of their independent hazards strikes, shared out in proportion to the hazards.
    fn questions(&mut self, position: usize) -> Vec<(Question, f64)> {
        let options = self.options;
        let mut due: Vec<(Question, f64)> = self
            .facts(position)
            .map(|(question, clock, distance)| (question, clock.hazard(distance, options)))
            .filter(|&(_, hazard)| hazard > 0.0)
            .collect();
        let none: f64 = due.iter().map(|(_, hazard)| 1.0 - hazard).product();
        let total: f64 = due.iter().map(|(_, hazard)| hazard).sum();
        for (_, hazard) in &mut due {
            *hazard *= (1.0 - none) / total;
        }
        due
    }

    fn ask_holder(&mut self, teller: &mut Teller, questions: &[(Question, f64)]) -> Result<(), Stop> {
        let ways = questions.iter().filter_map(|&(question, weight)| match question {
            Question::Holder { object } => {
                Some((object, Alternative { text: self.objects[object].noun, weight }))
            }
            Question::Place { .. } => None,
        });
        let asked = choose(teller, Tag::Free, ways.collect(), None)?;
        teller.fixed("? ")?;
        let start = teller.position();
        let holder = self.objects[asked].holder;
        let cast: Vec<&str> = self.people.iter().map(|person| person.initial).collect();
        teller.choose(Tag::Answer, &evenly(&[cast[holder]]), Some(&evenly(&cast)))?;
        self.name_tail(teller, holder, Tag::Answer)?;
        let clock = &mut self.objects[asked].clock;
        teller.answered(Asked::Who, start, 1.0 / cast.len() as f64, start - clock.stated);
        clock.open = false;
        teller.fixed(" has it. ")
    }

    fn ask_place(&mut self, teller: &mut Teller, questions: &[(Question, f64)]) -> Result<(), Stop> {
        let ways = questions.iter().filter_map(|&(question, weight)| match question {
            Question::Place { person } => {
                Some((person, Alternative { text: self.people[person].initial, weight }))
            }
            Question::Holder { .. } => None,
        });
        let asked = choose(teller, Tag::Free, ways.collect(), None)?;
        self.name_tail(teller, asked, Tag::NameTail)?;
        teller.fixed(AT_THE)?;
        let start = teller.position();
        // Only people whose place was stated are asked about, so there always is one.
        let Some(place) = &mut self.people[asked].place else { return Err(Stop) };
        teller.choose(Tag::Answer, &evenly(&[place.noun]), Some(&evenly(&PLACES)))?;
        teller.answered(Asked::Where, start, 1.0 / PLACES.len() as f64, start - place.clock.stated);
        place.clock.open = false;
        teller.fixed(". ")
    }

    /// What the person whose initial was just written does, in a sentence that began at `began`.
    fn act(&mut self, teller: &mut Teller, person: usize, began: usize) -> Result<(), Stop> {
        self.name_tail(teller, person, Tag::NameTail)?;
        let early = self.may_state(began);
        let options = self.options;
        let gifts: Vec<(usize, Alternative<'static>)> = (self.objects.iter().enumerate())
            .filter(|(_, object)| object.holder == person && object.clock.may_change(began, options))
            .map(|(index, object)| (index, Alternative { text: object.noun, weight: 1.0 }))
            .collect();
        let here = self.people[person].place.as_ref();
        let may_walk = here.is_none_or(|place| place.clock.may_change(began, options));
        let (mut ways, mut prior) = (Vec::new(), Vec::new());
        for (action, text, weight) in ACTIONS {
            let (possible, thinkable) = match action {
                Action::Give => (early && !gifts.is_empty(), early && !self.objects.is_empty()),
                Action::Walk => (early && may_walk, early),
                _ => (true, true),
            };
            if possible {
                ways.push((action, Alternative { text, weight }));
            }
            if thinkable {
                prior.push(Alternative { text, weight });
            }
        }
        match choose(teller, Tag::Template, ways, Some(&prior))? {
            Action::Give => return self.give(teller, person, gifts),
            Action::Walk => return self.walk(teller, person),
            Action::See => {
                fresh(teller, &COUNTS, |_| false)?;
                fresh(teller, &ANIMALS, |_| false)?;
            }
            Action::Hum => {
                fresh(teller, &MOODS, |_| false)?;
                teller.fixed(" song")?;
            }
            Action::Smile => {
                fresh(teller, &MANNERS, |_| false)?;
            }
        }
        teller.fixed(". ")
    }

    fn give(
        &mut self,
        teller: &mut Teller,
        giver: usize,
        gifts: Vec<(usize, Alternative)>,
    ) -> Result<(), Stop> {
        let things: Vec<&str> = self.objects.iter().map(|object| object.noun).collect();
        let given = choose(teller, Tag::Free, gifts, Some(&evenly(&things)))?;
        teller.fixed(" to ")?;
        let others = (self.people.iter().enumerate()).filter(|(index, _)| *index != giver);
        let ways = others.map(|(index, other)| (index, Alternative { text: other.initial, weight: 1.0 }));
        let taker = choose(teller, Tag::Free, ways.collect(), None)?;
        self.name_tail(teller, taker, Tag::NameTail)?;
        teller.fixed(". ")?;
        self.objects[given].holder = taker;
        self.objects[given].clock = Clock::starting(teller.position());
        Ok(())
    }

    fn walk(&mut self, teller: &mut Teller, person: usize) -> Result<(), Stop> {
        let left = self.people[person].place.as_ref().map(|place| place.noun);
        let ways = PLACES.iter().filter(|&&noun| Some(noun) != left);
        let ways = ways.map(|&noun| (noun, Alternative { text: noun, weight: 1.0 }));
        let noun = choose(teller, Tag::Free, ways.collect(), Some(&evenly(&PLACES)))?;
        teller.fixed(". ")?;
        self.people[person].place = Some(Place { noun, clock: Clock::starting(teller.position()) });
        Ok(())
    }

    /// The name after its initial: nothing to decide for whoever remembers, a new name for whoever does not.
    fn name_tail(&self, teller: &mut Teller, person: usize, tag: Tag) -> Result<(), Stop> {
        for (part, syllables) in self.people[person].tail.into_iter().zip(NAME_TAIL) {
            teller.choose(tag, &evenly(&[part]), Some(&evenly(syllables)))?;
        }
        Ok(())
    }
}
