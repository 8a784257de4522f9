"""What shoppers answer, in their own words, and what it is taken for."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cartwake.messages.keywords import TABLES, Intent, Words, fold, intent
from cartwake.messages.opt_out import opt_out_rules
from cartwake.messages.templates import LOCALES, render_text, wording

STOP = """
STOP | stop | Stop. | STOP!!! | "STOP" | (stop) | s t o p | stoppp | STOP STOP STOP | Stop all | STOPALL | stop-all
UNSUBSCRIBE | End | quit | Revoke | OPT OUT | opt-out | OptOut | cancel | Cancel please | END, thanks | STOP 36180
stop2end | Stop please | please stop texting me | Please STOP sending me these! | pls stop | I said stop
why won't you stop | If you don't stop I will report you | these texts never stop | unsubscribe me | Can I opt out?
opt me out please | no more texts | No more messages please | dont text me again | Don't send me any more messages
do not contact me | do not text this number | I don't want these text messages | I no longer want to receive texts
leave me alone | take me off your list | Take me off this list | remove me | remove my number | delete my number
wrong number | You have the wrong person | this is not my number | not interested | NO | No thanks | No, thank you.
quit texting me | I withdraw my consent | I revoke permission to text me | cancel these | end these texts | fuck off
🛑 | 🛑 texting me | I'll stop by tomorrow, but stop texting me | stop in the name of the law | unsuscribe | ＳＴＯＰ
𝗦𝗧𝗢𝗣

STOPP | Stopp! | Bitte stoppen | Abmelden | Ende | ABBESTELLEN | Kündigung | nein danke | Nein | bitte keine SMS mehr
Keine SMS mehr bitte | Bitte keine Nachrichten | Ich möchte keine SMS mehr bekommen | Hören Sie auf! | hört auf
aufhören | Schreiben Sie mir nicht mehr | Schickt mir nichts mehr | nie wieder anschreiben | Lassen Sie mich in Ruhe
kein Interesse | Löschen Sie meine Nummer | Falsche Nummer | Das ist nicht meine Nummer
Ich widerrufe meine Einwilligung | Melden Sie mich bitte ab | Ich moechte keine Werbung

ARRÊT | arret | Arrêtez | arrêtez ! | arrêtez de m'envoyer des sms | STOP SMS | désabonner | Désinscription svp
Non merci | plus de SMS svp | Je ne veux plus recevoir de SMS | ne m'envoyez plus rien | Ne m’écrivez plus
pas de pub | Cessez | Retirez-moi de votre liste | supprimez mon numéro | laissez-moi tranquille
ce n'est pas mon numéro | Mauvais numéro | pas intéressée | foutez-moi la paix | je ne souhaite plus de messages

BAJA | baja por favor | darme de baja | Quiero darme de baja | dadme de baja | Baja SMS | parar | No gracias
no más mensajes | No quiero recibir más mensajes | no me envíen más SMS | no me escribáis | dejen de enviarme mensajes
déjenme en paz | dejad de mandar mensajes | borren mi número | número equivocado | Este no es mi número
sáquenme de la lista

rezygnuję | Rezygnuje | KONIEC | wypisz | proszę mnie wypisać | proszę nie wysyłać SMS | nie piszcie do mnie
nie chcę więcej wiadomości | nie życzę sobie | przestańcie | proszę usunąć mój numer | to nie mój numer | pomyłka
cofam zgodę | dajcie mi spokój | Nie, dziękuję | nie wysylajcie wiecej

nebesiųskite | Nebesiuskite! | nebesiųskit man žinučių | prašau nebesiųsti | neberašykite | nerašykit man | atsisakau
Atsisakau SMS | noriu atsisakyti | nenoriu gauti SMS | nenoriu jūsų žinučių | NE | Ne, ačiū | nereikia
Nebereikia, ačiū | netrukdykite | išbraukite mane iš sąrašo | ištrinkite mano numerį | liaukitės | nustokite siųsti
stabdykit | ne mano numeris | klaidingas numeris | palikit mane ramybėje | atstokit | baikit siuntinėti

СТОП | стоп! | Стоп пожалуйста | отписка | отписаться | Отпишите меня | хватит | Хватит писать! | прекратите | нет
Не пишите мне | больше не пишите мне | не присылайте смс | не надо мне писать | не хочу получать SMS
удалите мой номер | это не мой номер | вы ошиблись номером | оставьте меня в покое | отстаньте
я отзываю своё согласие | отказываюсь

nesūtiet | lūdzu, vairs nesūtiet | nesutiet vairs sms | atteikties | Nē, paldies | beidziet | nevēlos saņemt īsziņas
nav mans numurs

lõpeta | LÕPETAGE | lopetage palun | ärge saatke | palun ärge enam saatke | ei soovi sõnumeid | Ei, aitäh
vale number | jätke mind rahule

lopeta | LOPETTAKAA | älkää lähettäkö | ei enää viestejä | en halua näitä viestejä | Ei kiitos | poistakaa numeroni
väärä numero | jättäkää rauhaan

stoppen | Afmelden aub | geen sms meer | geen berichten meer sturen | ik wil geen reclame | Nee dank je | Uitschrijven
laat me met rust | stuur me niets meer | verwijder mijn nummer | verkeerd nummer

basta | Basta messaggi | non voglio più ricevere sms | non mandatemi più messaggi | non scrivetemi | smettetela
No grazie | cancellatemi | disiscrivimi | numero sbagliato | cancellate il mio numero | lasciatemi in pace

parem | Parem de enviar mensagens | não quero receber mensagens | Não, obrigada | não enviem mais
removam-me da lista | SAIR | número errado | deixem-me em paz

sluta | Sluta skicka sms | STOPPA | Avregistrera mig | nej tack | inga fler sms | skicka inte fler meddelanden
fel nummer | lämna mig ifred

afmeld | Afmeld mig tak | FRAMELD | nej tak | ikke flere sms'er | send ikke flere beskeder | lad mig være
forkert nummer

avmeld | Meld meg av | slutt å sende meldinger | ingen flere meldinger | nei takk | feil nummer | la meg være i fred
"""

OTHER = """
I will stop by your shop tomorrow | I'll stop by | can I stop by on Monday? | I'd like to stop by | the bus stop
Where is the next bus stop? | don't stop | Please don't stop | Never stop! | Do not stop | one stop shop | Thanks!
Thank you | ok | OK will do | Fine | Yes please | yes I want it | start please | I want to start | no problem
Is it still available? | When will it ship? | Who is this? | I already bought it | weekend
the end of the month is better | help me choose | can you help? | more info please | Can I cancel my order?
How do I pay? | I unstopped the sink | nonstop | I have the wrong size | I go away next week | 👍 | 123 | ... | ?

Ist die Jacke noch da? | Ich habe keine Größe M gefunden | Ja bitte | Wann kommt die Lieferung? | Das hört sich gut an
Où est l'arrêt de bus ? | Oui merci | Rue de la Paix | C'est livré quand ? | Ce n'est pas ma taille | ¿Cuándo llega?
quiero la talla M para mi hijo | Sí | no me mandaron el código | temporada baja | Kiedy dostawa?
Nie wysyłacie do Niemiec? | Tak | czy jest rozmiar M | Kada pristatysite? | Taip | ar dar turite M dydį?
Nesiunčiate į Vokietiją? | sveiki | Когда доставка? | Да | есть размер М? | не работает ссылка | мне не хватит одной
Kas pirkums vēl ir? | Kas teil on suurus M? | Onko koko M vielä? | Is maat M er nog? | Quando arriva? | Quando chega?
När kommer den? | Hvornår kommer den? | Når kommer den?
"""

START = """
START | start | Start! | UNSTOP | Unstop. | YES | yes! | ALTA | СТАРТ | pradėti | PRADETI | wznów | starta
"""
HELP = """
HELP | help! | Info | INFO? | Hilfe | aide | AYUDA | pomoc | Pagalba | помощь | apua | hulp | aiuto | hjälp | hjælp
"""


def said(table: str) -> list[str]:
    return [body.strip() for line in table.splitlines() for body in line.split(" | ") if body.strip()]


@pytest.mark.parametrize("body", [*said(STOP), "S\u200bT\u200bO\u200bP", "don\u00b4t text me", "stop\n\nplease"])
def test_stop(body: str) -> None:
    assert intent(body, None) is Intent.STOP


@pytest.mark.parametrize("body", [*said(OTHER), "", " ", "\n", "🛒"])
def test_other(body: str) -> None:
    assert intent(body, None) is Intent.OTHER


@pytest.mark.parametrize("body", said(START))
def test_start(body: str) -> None:
    assert intent(body, None) is Intent.START


@pytest.mark.parametrize("body", said(HELP))
def test_help(body: str) -> None:
    assert intent(body, None) is Intent.HELP


@pytest.mark.parametrize("carrier_says", ["STOP", "stop", " STOP "])
@pytest.mark.parametrize("body", ["START", "", "HELP", "anything"])
def test_the_carriers_stop_is_final(body: str, carrier_says: str) -> None:
    assert intent(body, carrier_says) is Intent.STOP


@pytest.mark.parametrize("carrier_says", ["START", "HELP", "", "SOMETHING"])
def test_the_carriers_other_readings_do_not_decide(carrier_says: str) -> None:
    assert intent("STOP", carrier_says) is Intent.STOP
    assert intent("hello", carrier_says) is Intent.OTHER


@pytest.mark.parametrize("locale", LOCALES)
def test_every_word_that_a_text_may_name_is_honoured(locale: str) -> None:
    words = wording(locale)
    assert "STOP" in words.stop_words
    assert {intent(word, None) for word in words.stop_words} == {Intent.STOP}
    assert {intent(word, None) for word in words.start_words} == {Intent.START}


REACTIONS = ["Liked “{}”", 'Laughed at "{}"', "Gefällt „{}“", "A aimé « {} »", "👍 “{}”"]


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("reaction", REACTIONS)
@pytest.mark.parametrize("country", ["LT", *opt_out_rules().countries])
def test_a_reaction_that_quotes_our_text_is_not_a_stop(locale: str, reaction: str, country: str) -> None:
    text = render_text(
        locale=locale,
        shop_name="Acme",
        phone_country=country,
        link="https://s.example/r/x",
        opt_out_link="",
        two_way_sender=True,
    )
    assert intent(reaction.format(text), None) is Intent.OTHER
    assert intent("STOP! " + reaction.format(text), None) is Intent.STOP


def entries(table: str) -> list[str]:
    return [entry.strip() for entry in table.split(",") if entry.strip()]


def spoken(phrase: str) -> str:
    """A body that a table's phrase describes: the first of each choice, nothing for a lone star."""
    slots = [slot.split("/")[0].removesuffix("*") for slot in phrase.removeprefix("^").split() if slot != "*"]
    return " ".join(slots)


@pytest.mark.parametrize("words", TABLES.values(), ids=TABLES.keys())
def test_every_entry_of_the_tables_works(words: Words) -> None:
    assert [entry for entry in entries(words.alone) if intent(entry.title(), None) is not Intent.STOP] == []
    assert [entry for entry in entries(words.anywhere) if intent(spoken(entry).upper(), None) is not Intent.STOP] == []
    assert [entry for entry in entries(words.harmless) if intent(spoken(entry), None) is not Intent.OTHER] == []
    assert [entry for entry in entries(words.start) if intent(entry + "!", None) is not Intent.START] == []
    assert [entry for entry in entries(words.help) if intent(entry + "?", None) is not Intent.HELP] == []


def test_courtesy_is_no_keyword() -> None:
    courtesy = {fold(word) for words in TABLES.values() for word in entries(words.courtesy)}
    keywords = set(chain.from_iterable(entries(words.alone + "," + words.start) for words in TABLES.values()))
    assert courtesy.isdisjoint(fold(word) for word in keywords)


@given(st.text(max_size=200), st.none() | st.text(max_size=10))
def test_any_text_has_an_intent(body: str, carrier_says: str | None) -> None:
    assert intent(body, carrier_says) in Intent


@given(st.text("abc,;! \n\u00a0é€", max_size=40), st.text("xyz.? \t", max_size=40))
def test_the_word_stop_stops_whatever_surrounds_it(before: str, after: str) -> None:
    assert intent(f"{before} Stop {after}", None) is Intent.STOP


@given(st.text(max_size=60).map(fold))
def test_folding_twice_changes_nothing(words: str) -> None:
    assert fold(words) == words
