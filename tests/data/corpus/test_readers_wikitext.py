"""Wikipedia's markup becomes plain paragraphs."""

import pytest

from bert_jax.data.corpus import parsing


@pytest.mark.parametrize(
    "text, expected",
    [
        ("'''Mars''' is ''red''.", "Mars is red."),
        ("A [[planet]] and [[Moon|its moon]].", "A planet and its moon."),
        ("See [http://x.org the site] or [http://x.org].", "See the site or ."),
        ("a{{cite|b={{c|d}}}} e", "a e"),
        ("It is {{convert|32|km|mi|abbr=on}} long.", "It is 32 km long."),
        ("Called {{lang|fr|la rue}} there.", "Called la rue there."),
        ("1.<ref name=x>{{cite}} no</ref> 2.<ref name=x /> 3.", "1. 2. 3."),
        ("a <!-- no\nno --> b", "a b"),
        ("{| class=x\n| cell\n{|\n| inner\n|}\n|}\nText.", "Text."),
        ("[[File:x.jpg|thumb|A [[red]] planet]]Text.", "Text."),
        ("Text.[[Category:Planets]] [[de:Mars]]", "Text."),
        ("a&nbsp;b &amp; c", "a b & c"),
        ("Mars (; {{IPA|x}}) is.", "Mars is."),
        ("x <math>a^2 < b</math> y <br/> z", "x y z"),
        ("* one\n## two\n: three", "one\ntwo\nthree"),
        ("__NOTOC__\n| left over\n}}\n\nText.", "Text."),
        ("", ""),
    ],
)
def test_markup(text, expected):
    assert parsing.plain_wikitext(text) == expected


def test_sections_of_links_are_dropped_with_their_subsections():
    text = "a\n== See also ==\nb\n=== more ===\nc\n== History ==\nd\n==References==\ne"
    assert parsing.plain_wikitext(text) == "a\nd"
