"""British spellings and their American forms: a table of frequent words, and the forms that are derived from them."""

from __future__ import annotations

import functools
from collections.abc import Mapping

__all__ = ["american_spellings"]

#: Stems of verbs in -ise, as -ize; words that are spelled so on both sides (advise, exercise, rise) are not here.
_ISE = """agon analog antagon apolog author capital categor central character civil colon commercial computer critic
crystal custom deput digit dramat econom emphas equal familiar fertil final formal general global harmon hospital
immun industrial initial item jeopard legal liberal local magnet maxim mechan memor minim mobil modern monopol
national neutral normal optim organ patron penal personal plagiar popular priorit privat public rational real
recogn regular revolution scrutin sensit social special stabil standard steril subsid summar symbol sympath synchron
terror theor tranquil traumat trivial urban util vandal verbal victim visual"""
#: Stems of words in -our, as -or.
_OUR = """arm behavi cand clam col dem endeav fav ferv flav glam harb hon hum lab neighb od parl ranc rig rum sav splend
tum val vap vig"""
_AFTER_OUR = ("", "s", "ed", "ing", "er", "ers", "ful", "less", "able", "ably", "ite", "ites", "hood", "hoods", "ly")
#: Words in -re, as -er.
_RE = """calibre centimetre centre fibre kilometre litre lustre meagre metre millimetre mitre ochre sabre sepulchre
sombre spectre theatre"""
#: Verbs that double the l before an ending.
_DOUBLED = """cancel channel counsel dial duel equal fuel funnel label level marvel model panel pedal pencil quarrel
refuel shovel signal snorkel spiral total travel tunnel unravel"""
_PAIRS = """aeroplane airplane; aesthetic esthetic; ageing aging; aluminium aluminum; amoeba ameba; anaemia anemia;
anaesthetic anesthetic; analyse analyze; analysed analyzed; analyses analyzes; analysing analyzing; archaeology
archeology; artefact artifact; axe ax; behove behoove; breathalyse breathalyze; catalogue catalog; catalogues catalogs;
catalyse catalyze; cheque check; cheques checks; chilli chili; cosy cozy; counsellor counselor; defence defense;
defences defenses; dialogue dialog; dialogues dialogs; diarrhoea diarrhea; disc disk; discs disks; draught draft;
draughts drafts; encyclopaedia encyclopedia; enrol enroll; enrols enrolls; enrolment enrollment; fulfil fulfill;
fulfils fulfills; fulfilment fulfillment; foetus fetus; gaol jail; grey gray; greyer grayer; greys grays;
gynaecology gynecology; haemoglobin hemoglobin; haemorrhage hemorrhage; instalment installment; instil instill;
jewellery jewelry; jeweller jeweler; judgement judgment; kerb curb; kerbs curbs; leukaemia leukemia; licence license;
licences licenses; manoeuvre maneuver; manoeuvres maneuvers; manoeuvred maneuvered; marvellous marvelous;
mediaeval medieval; mould mold; moulds molds; mouldy moldy; moult molt; moustache mustache; offence offense;
offences offenses; oesophagus esophagus; oestrogen estrogen; orthopaedic orthopedic; paediatric pediatric;
paralyse paralyze; paralysed paralyzed; plough plow; ploughs plows; ploughed plowed; ploughing plowing;
practise practice; practised practiced; practises practices; practising practicing; pretence pretense;
programme program; programmes programs; pyjamas pajamas; sceptic skeptic; sceptical skeptical; skilful skillful;
smoulder smolder; storey story; storeys stories; sulphur sulfur; traveller traveler; travellers travelers;
tyre tire; tyres tires; whisky whiskey; wilful willful; woollen woolen; yoghurt yogurt; yoghurts yogurts"""


@functools.cache
def american_spellings() -> Mapping[str, str]:
    """British -> American, lower case; no American form is a British one of another word.

    Complexity: O(1) after the first call.

    Example:
        >>> table = american_spellings()
        >>> table["colours"], table["organisation"], table["travelled"], table["metres"]
        ('colors', 'organization', 'traveled', 'meters')
    """
    table: dict[str, str] = {}
    for pair in _PAIRS.split(";"):
        british, american = pair.split()
        table[british] = american
    for stem in _ISE.split():
        for end in ("ise", "ised", "ises", "ising", "isation", "isations", "iser", "isers"):
            table[stem + end] = f"{stem}iz{end[2:]}"
    for stem in _OUR.split():
        for end in _AFTER_OUR:
            table[f"{stem}our{end}"] = f"{stem}or{end}"
    for word in _RE.split():
        table |= {word: f"{word[:-2]}er", f"{word}s": f"{word[:-2]}ers", f"{word}d": f"{word[:-2]}ered"}
    for verb in _DOUBLED.split():
        for end in ("ed", "ing", "er", "ers"):
            table[f"{verb}l{end}"] = f"{verb}{end}"
    return table
