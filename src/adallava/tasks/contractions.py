"""The spellings of contractions that VQA's scripts take for one another.

The published table (`vqaEval.py` of GT-Vision-Lab/VQA; lmms-eval has the same) holds 120 misspellings, of which 114
are in lower case, as words are when they are looked up, and change something. All but one lack exactly one apostrophe
of the right form, and every form is there without each of its apostrophes; so only the right forms are listed here.
"""

_FORMS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've
why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
you've
"""

_ODD = {"somebody'd": "somebodyd"}
"""The table's one entry that takes an apostrophe away."""


def _without_each_apostrophe(form: str) -> list[str]:
    return [form[:place] + form[place + 1 :] for place, letter in enumerate(form) if letter == "'"]


CONTRACTIONS: dict[str, str] = _ODD | {
    short: form for form in _FORMS.split() for short in _without_each_apostrophe(form)
}
"""The right form by misspelling, in lower case."""
