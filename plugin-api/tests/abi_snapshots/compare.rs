//! Whether one state of the ABI file is another one with things appended: what published plugins were compiled against
//! must still be there, letter by letter. Comments may change, imports are not looked at.

use quote::ToTokens;
use syn::{Attribute, Expr, Fields, File, Item, ItemConst, ItemStruct, ItemTrait, TraitItem, Type};

/// What `new` does to `old` that a published ABI does not allow, a sentence each.
pub fn faults(old: &File, new: &File) -> Vec<String> {
    let mut faults = Vec::new();
    items("", &old.items, &new.items, &mut faults);
    faults
}

/// Kind and name of an item; none of an import.
fn key(item: &Item) -> Option<(&'static str, String)> {
    Some(match item {
        Item::Use(_) => return None,
        Item::Const(item) => ("constant", item.ident.to_string()),
        Item::Mod(item) => ("module", item.ident.to_string()),
        Item::Struct(item) => ("struct", item.ident.to_string()),
        Item::Trait(item) => ("trait", item.ident.to_string()),
        Item::Type(item) => ("type", item.ident.to_string()),
        other => ("item", text(other)),
    })
}

fn items(module: &str, old: &[Item], new: &[Item], faults: &mut Vec<String>) {
    for was in old {
        let Some((kind, name)) = key(was) else { continue };
        let name_here = format!("{kind} {module}{name}");
        let same = new
            .iter()
            .find(|item| key(item).is_some_and(|(other, found)| (other, found) == (kind, name.clone())));
        let Some(is) = same else {
            faults.push(format!("{name_here} is gone: put it back, plugins were built against it"));
            continue;
        };
        match (was, is) {
            (Item::Const(was), Item::Const(is)) => constant(&name_here, was, is, faults),
            (Item::Mod(was), Item::Mod(is)) => {
                let inside = |item: &syn::ItemMod| item.content.as_ref().map(|(_, items)| items.clone());
                let (was, is) = (inside(was).unwrap_or_default(), inside(is).unwrap_or_default());
                items(&format!("{module}{name}::"), &was, &is, faults);
                distinct(&name, &is, faults);
            }
            (Item::Struct(was), Item::Struct(is)) => structure(&name_here, was, is, faults),
            (Item::Trait(was), Item::Trait(is)) => interface(&name_here, was, is, faults),
            (Item::Type(was), Item::Type(is)) => {
                let plain = |item: &syn::ItemType| text(&syn::ItemType { attrs: Vec::new(), ..item.clone() });
                changed(&name_here, plain(was), plain(is), faults);
            }
            _ => {}
        }
    }
}

/// The same type and value; a list may go on.
fn constant(name: &str, was: &ItemConst, is: &ItemConst, faults: &mut Vec<String>) {
    // They say which version this is, and so differ.
    if was.ident == "API_VERSION" || was.ident == "API_VERSION_TEXT" {
        return;
    }
    if let (Type::Array(was_type), Type::Array(is_type), Expr::Array(was), Expr::Array(is)) =
        (&*was.ty, &*is.ty, &*was.expr, &*is.expr)
    {
        let first: Vec<String> = is.elems.iter().take(was.elems.len()).map(text).collect();
        let all: Vec<String> = was.elems.iter().map(text).collect();
        changed(name, text(&was_type.elem), text(&is_type.elem), faults);
        return changed(name, all.join(", "), first.join(", "), faults);
    }
    let plain = |item: &ItemConst| text(&ItemConst { attrs: Vec::new(), ..item.clone() });
    changed(name, plain(was), plain(is), faults);
}

/// No two numbers of a module are equal: a code that was given away stays so.
fn distinct(module: &str, items: &[Item], faults: &mut Vec<String>) {
    let mut seen: Vec<(String, String)> = Vec::new();
    for item in items {
        let Item::Const(item) = item else { continue };
        if matches!(&*item.ty, Type::Array(_)) {
            continue;
        }
        let (name, value) = (item.ident.to_string(), text(&item.expr));
        if let Some((other, _)) = seen.iter().find(|(_, known)| *known == value) {
            faults.push(format!(
                "constant {module}::{name} is {value}, which is {other}: take the next free number"
            ));
        }
        seen.push((name, value));
    }
}

/// The same fields in the same places; one that may grow has more after them.
fn structure(name: &str, was: &ItemStruct, is: &ItemStruct, faults: &mut Vec<String>) {
    let head = |item: &ItemStruct| {
        format!("{} {} {}", attributes(&item.attrs), text(&item.vis), text(&item.generics))
    };
    changed(name, head(was), head(is), faults);
    let fields = |item: &ItemStruct| -> Vec<(String, String)> {
        let Fields::Named(fields) = &item.fields else { return vec![(String::new(), text(&item.fields))] };
        let field = |field: &syn::Field| {
            let name = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
            let plain = syn::Field { attrs: Vec::new(), ..field.clone() };
            (name, format!("{} {}", attributes(&field.attrs), text(&plain)).trim().to_string())
        };
        fields.named.iter().map(field).collect()
    };
    let (old, new) = (fields(was), fields(is));
    members(name, "field", &old, &new, faults);
    if !attributes(&was.attrs).contains("Prefix") {
        for (field, _) in new.iter().skip(old.len()) {
            faults.push(format!(
                "{name} has a new field {field}, but its size is part of the ABI: make another struct with it"
            ));
        }
    }
}

/// The same methods in the same places, and after them others with a body for hosts and plugins that lack them.
fn interface(name: &str, was: &ItemTrait, is: &ItemTrait, faults: &mut Vec<String>) {
    let head = |item: &ItemTrait| {
        let parents = text(&item.supertraits);
        format!("{} {} {} {parents}", attributes(&item.attrs), text(&item.vis), text(&item.generics))
    };
    changed(name, head(was), head(is), faults);
    let methods = |item: &ItemTrait| -> Vec<(String, String)> {
        let method = |item: &TraitItem| match item {
            TraitItem::Fn(method) => {
                let plain = syn::TraitItemFn { attrs: Vec::new(), ..method.clone() };
                let written = format!("{} {}", attributes(&method.attrs), text(&plain)).trim().to_string();
                (method.sig.ident.to_string(), written)
            }
            other => (String::new(), text(other)),
        };
        item.items.iter().map(method).collect()
    };
    let old = methods(was);
    members(name, "method", &old, &methods(is), faults);
    for item in is.items.iter().skip(old.len()) {
        let TraitItem::Fn(method) = item else { continue };
        let ident = &method.sig.ident;
        if method.default.is_none() {
            faults.push(format!(
                "{name} has a new method {ident} without a body: give it one that fails by name or does what its \
                 comment says, for the side that does not have it"
            ));
        }
        if attributes(&method.attrs).contains("last_prefix_field") {
            faults.push(format!(
                "{name} has a new method {ident} that ends the prefix: the prefix stays as it was"
            ));
        }
    }
}

/// The old members, in their order, at the front of the new ones. Of several differences the first tells.
fn members(
    name: &str,
    what: &str,
    old: &[(String, String)],
    new: &[(String, String)],
    faults: &mut Vec<String>,
) {
    for (index, (member, was)) in old.iter().enumerate() {
        if !new.iter().any(|(other, _)| other == member) {
            faults.push(format!("{name} lost its {what} {member}: put it back where it was"));
            return;
        }
        let (found, is) = &new[index.min(new.len() - 1)];
        if found != member {
            faults.push(format!(
                "{name} has the {what} {found} where {member} was: append what is new after the last {what}"
            ));
            return;
        }
        changed(&format!("{what} {member} of {name}"), was.clone(), is.clone(), faults);
    }
}

fn changed(name: &str, was: String, is: String, faults: &mut Vec<String>) {
    if was != is {
        let (was, is) = (short(&was), short(&is));
        faults.push(format!(
            "{name} was `{was}` and is `{is}`: put it back, and append what is new under another name"
        ));
    }
}

/// Everything but comments.
fn attributes(list: &[Attribute]) -> String {
    let kept = list.iter().filter(|attribute| !attribute.path().is_ident("doc"));
    kept.map(text).collect::<Vec<_>>().join(" ")
}

fn text(tokens: &impl ToTokens) -> String {
    tokens.to_token_stream().to_string()
}

/// As much of an item as one can take in.
fn short(text: &str) -> String {
    const ENOUGH: usize = 200;
    let start: String = text.trim().chars().take(ENOUGH).collect();
    if start.len() < text.trim().len() {
        format!("{start}...")
    } else {
        start
    }
}
